"""The examples in docstrings run, and what users call has one."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import quintain.bench
from quintain.bench.api import registry

ROOT = Path(quintain.bench.__file__).parent.parent
FOLDERS = ("bench", "attacks", "defenses", "models")
PROMPT = ">>> "


def modules_with_examples():
    """The names of the modules, within the package, whose source has an example."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if PROMPT in path.read_text(encoding="utf-8"):
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("module", list(modules_with_examples()))
def test_examples_run(module, monkeypatch, tmp_path, capsys):
    """Each from a folder of its own, and with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))
    with torch.random.fork_rng(devices=[]), registry.temporary():
        failed, tried = doctest.testmod(
            importlib.import_module(f"quintain.{module}"), optionflags=doctest.ELLIPSIS
        )
    assert failed == 0, capsys.readouterr().out
    assert tried


@pytest.mark.parametrize("kind", ["attacks", "gradients", "losses", "bases", "models", "defenses"])
def test_every_plugin_has_an_example(kind):
    plugins = [one for one in registry.plugins(kind) if one.source == "quintain"]
    assert plugins
    assert [one.name for one in plugins if PROMPT not in (one.load().__doc__ or "")] == []


def test_a_wrong_example_is_noticed():
    """Negative control: that the runner compares what is printed."""
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed == 1


CHECKOUT = Path(__file__).parents[1]
PAGES = sorted((*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")))


@pytest.mark.parametrize(
    "page", [one for one in PAGES if PROMPT in one.read_text("utf-8")], ids=lambda one: one.name
)
def test_the_examples_on_a_page_run(page, monkeypatch, tmp_path, capsys):
    """From the folder of the repository, where some of them read its results."""
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))
    with torch.random.fork_rng(devices=[]):
        failed, tried = doctest.testfile(str(page), module_relative=False)
    assert failed == 0, capsys.readouterr().out
    assert tried


def test_the_pages_have_examples():
    have = {one.name for one in PAGES if PROMPT in one.read_text("utf-8")}
    assert {"getting-started.md", "attacks.md", "models.md", "results.md"} <= have
