from pathlib import Path

import pytest

from quintain.bench.paths import cache_folder


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    monkeypatch.delenv("QUINTAIN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_default_is_in_the_home_folder(tmp_path):
    assert cache_folder() == tmp_path / ".cache" / "quintain"


def test_the_desktop_convention_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/somewhere")
    assert cache_folder() == Path("/var/somewhere/quintain")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "quintain"


def test_our_own_variable_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/somewhere")
    monkeypatch.setenv("QUINTAIN_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("QUINTAIN_CACHE", "here")
    assert cache_folder() == Path.cwd() / "here"
