from pathlib import Path

import pytest

from quintain.bench.api import paths
from quintain.bench.api.paths import cache_folder, usable_cache


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


@pytest.fixture
def no_home(monkeypatch):
    """A user whom nobody knows: no HOME, no entry in the password file."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    paths._temporary.cache_clear()
    yield
    paths._temporary.cache_clear()


def test_a_user_without_a_home_gets_a_folder_for_the_time_being(no_home, capsys):
    folder = usable_cache()
    assert folder == cache_folder()
    assert folder.is_dir()
    assert capsys.readouterr().err.startswith("quintain: there is no home folder; trained networks")


def test_a_home_that_cannot_be_written_is_as_good_as_none(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    paths._temporary.cache_clear()
    folder = usable_cache()
    paths._temporary.cache_clear()
    assert folder.is_dir()
    assert str(tmp_path / "file") in capsys.readouterr().err
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "file"))
    assert usable_cache() == tmp_path / "file"  # to be refused by who uses it


def test_a_home_that_can_be_written_is_used(tmp_path):
    assert usable_cache() == tmp_path / ".cache" / "quintain"


def test_evaluating_needs_no_home(no_home):
    import torch

    from quintain.bench import evaluate

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    evaluate(model, torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64), "fgsm")
