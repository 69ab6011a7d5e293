"""What is sent to workers that do not see the run's files, and what of theirs is kept."""

import os
from pathlib import Path

import pytest
import torch

from quintain.bench.api.errors import QuintainError
from quintain.bench.suite.config import read_suite
from quintain.bench.suite.executors import mirror
from quintain.bench.suite.executors.mirror import Brought, files_of_suite, keep
from quintain.bench.suite.jobs import Failed, Run

MODEL = """
from torch import nn
from quintain.bench.api import registry

@registry.model("flat")
def flat(inputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(256, inputs.n_classes))
"""


@pytest.fixture
def run(tmp_path, write_suite):
    """A suite with a plugin file, in a folder that holds much besides."""
    folder = tmp_path / "suite"
    for name in ("data/train", ".git", "__pycache__", "older-run/records", "out", "cache"):
        (folder / name).mkdir(parents=True)
        (folder / name / "x.bin").write_bytes(b"1" * 100)
    (folder / "data" / "again").symlink_to(folder)  # in circles
    (folder / "older-run" / "manifest.json").write_text("{}")
    (folder / "own.py").write_text(MODEL)
    path = write_suite(folder=folder, plugins='["own.py"]', models='[[models]]\nname = "flat"\n')
    parsed, _, folder = read_suite(str(path))
    return Run(parsed, path.name, folder, torch.device("cpu"), folder / "cache")


def test_the_suites_files_are_sent_and_no_results(run):
    found = files_of_suite(run, run.folder / "out")
    names = {str(path.relative_to(run.folder)) for path in found}
    assert names == {"data/train/x.bin", "own.py", run.file}
    assert found[run.folder / "own.py"] == MODEL.encode()


def test_a_folder_that_holds_much_is_not_sent(run, monkeypatch):
    monkeypatch.setattr(mirror, "_MOST", 2**8)
    with pytest.raises(QuintainError, match="too much to be sent: use a file system that all"):
        files_of_suite(run, run.folder / "out")


def test_of_a_suite_that_names_no_file_nothing_is_sent(run, tmp_path, write_suite):
    path = write_suite(folder=tmp_path, models='[[models]]\nname = "alexnet"\n')
    parsed, _, folder = read_suite(str(path))
    assert files_of_suite(Run(parsed, path.name, folder, run.device, None), tmp_path / "out") == {}


def test_only_what_belongs_to_the_run_is_kept(run, tmp_path):
    out, answer = tmp_path / "out", Failed("why")
    kept = Brought(answer, {out / "records" / "a": b"1", run.cache / "networks" / "b": b"2"})
    assert keep(kept, run, out) is answer
    assert (out / "records" / "a").read_bytes() == b"1"
    assert (run.cache / "networks" / "b").read_bytes() == b"2"
    for path in (tmp_path / "elsewhere", out / ".." / "elsewhere"):
        with pytest.raises(QuintainError, match="not in the run directory"):
            keep(Brought(answer, {path: b"3"}), run, out)
    assert not (tmp_path / "elsewhere").exists()


def test_folders_of_workers_that_were_killed_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "quintain-worker-x").mkdir()
    (tmp_path / "quintain-worker-x" / ".alive").touch()
    os.utime(tmp_path / "quintain-worker-x" / ".alive", (0, 0))
    made = mirror.Mirror()
    assert [made.output.parent] == [*tmp_path.iterdir()]
    os.utime(made.output.parent / ".alive", (0, 0))  # old, but alive
    mirror.Mirror()
    assert len([*tmp_path.iterdir()]) == 2
    made.close()
    assert len([*tmp_path.iterdir()]) == 1
    assert Path(made.output).parent not in tmp_path.iterdir()
