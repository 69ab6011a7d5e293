"""A Chromium to open pages in."""

import os
import shutil

import pytest

from quintain.bench.report.page.build import page


@pytest.fixture
def write_page(tmp_path):
    """Write a page, and tell its address."""

    def write(content, name="page.html"):
        file = tmp_path / name
        file.write_text(page(content), encoding="utf-8")
        return file

    return write


def chromium_missing():
    """Why no browser can be had here; empty where one can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "the package playwright is not installed"
    if shutil.which("chromium") is None:
        return "no Chromium is installed (Debian's package chromium)"
    return ""


@pytest.fixture(scope="session")
def chromium():
    """A real headless Chromium. Where there is none, the tests of the page in use are left out."""
    missing = chromium_missing()
    if missing:
        if os.environ.get("QUINTAIN_NEEDS_CHROMIUM"):
            pytest.fail(f"the tests of the page need a browser, but {missing}")
        pytest.skip(f"THE PAGE WAS NOT TESTED IN A BROWSER: {missing}")
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", *quiet],
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, write_page):
    """Open a page: the browser's page, what its console said, and what it asked the network for."""
    opened_pages = []

    def open_page(content, **options):
        shown = chromium.new_page(viewport={"width": 1280, "height": 900}, **options)
        opened_pages.append(shown)
        shown.said, shown.asked = [], []
        shown.on("console", lambda one: shown.said.append(f"{one.type}: {one.text}"))
        shown.on("pageerror", lambda one: shown.said.append(str(one)))
        shown.on("dialog", lambda one: (shown.said.append("dialog"), one.dismiss()))
        shown.on("request", lambda one: shown.asked.append(one.url))
        file = write_page(content)
        shown.goto(file.as_uri())
        return shown

    yield open_page
    for one in opened_pages:
        one.close()
