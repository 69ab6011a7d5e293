"""Slurm workers, on this machine as submitit starts them, and on Slurm where there is one."""

import shutil
import signal
import subprocess

import pytest

from quintain.bench.suite.executors import slurm

from .test_executors import cells, without_tracebacks
from .test_executors import suite as _suite

pytest.importorskip("submitit", reason="THE SLURM EXECUTOR WAS NOT TESTED: submitit is missing")
suite = _suite
CLUSTER = pytest.mark.skipif(
    shutil.which("srun") is None, reason="NO SLURM CLUSTER WAS TRIED: there is no srun"
)
LOCAL = ("--executor", "slurm", "--slurm", "cluster=local", "--jobs", "2")


@pytest.fixture
def losses(monkeypatch):
    """How workers were lost."""
    found, answer = [], slurm._SlurmWorker.answer

    def noted(self):
        taken = answer(self)
        if isinstance(taken, slurm.Lost):
            found.append(taken)
        return taken

    monkeypatch.setattr(slurm._SlurmWorker, "answer", noted)
    monkeypatch.setattr(slurm, "_LOOK", 0.5)
    return found


@pytest.mark.parametrize(
    "ending",
    [signal.SIGKILL, signal.SIGUSR2, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "where", ["local", pytest.param("slurm", marks=[pytest.mark.slow, CLUSTER])]
)
def test_slurm_jobs_write_what_one_process_writes_though_one_ends(
    where, ending, suite, tmp_path, quintain, tables, losses
):
    """Killed, cancelled, or warned that its time is up: it then ends after its job."""
    path = suite(shard_examples="3")
    one, two = tmp_path / "one", tmp_path / "two"
    alone = quintain("run", path, "--out", one, "--device", "cpu")
    shutil.rmtree(tmp_path / "cache")
    (path.parent / "kill").write_text(str(int(ending)))
    options = [*LOCAL[:3], f"cluster={where}", *LOCAL[4:]]
    together = quintain("run", path, "--out", two, "--device", "cpu", *options)
    assert not (path.parent / "kill").exists()
    assert [lost.begun for lost in losses] == [ending != signal.SIGUSR2]
    assert alone.code == together.code == 1
    assert without_tracebacks(two) == without_tracebacks(one)
    assert cells(two) == cells(one)
    assert tables(two) == tables(one)
    assert not (two / ".workers").exists()


@pytest.mark.slow
@CLUSTER
def test_a_job_that_slurm_cancels_is_done_by_another_worker(
    suite, tmp_path, quintain, losses, monkeypatch
):
    path, put, cancelled = suite(shard_examples="3"), slurm._put, []

    def cancel(file, value):
        put(file, value)
        if file.name == "2.job" and not cancelled:
            cancelled.append(file)
            subprocess.run(["scancel", "--name", "quintain"], check=True)

    one, two = tmp_path / "one", tmp_path / "two"
    quintain("run", path, "--out", one, "--device", "cpu")
    monkeypatch.setattr(slurm, "_put", cancel)
    quintain("run", path, "--out", two, "--device", "cpu", *LOCAL[:2], "--jobs", "2")
    assert cancelled
    assert losses
    assert without_tracebacks(two) == without_tracebacks(one)


def test_what_a_worker_is_to_have(tmp_path):
    def needs(*said):
        return slurm.SlurmCluster(1, {"cluster": "local"}, tmp_path, said)._needs

    assert needs(4, 0.0) == {"cpus_per_task": 4}
    cores = slurm.torch.get_num_threads()
    assert needs(None, 0.5) == {"cpus_per_task": cores, "gpus_per_node": 1}


def test_options_are_given_to_submitit_by_its_names(tmp_path, recwarn):
    said = "cluster=local,partition=gpu,slurm_qos=high,mem_gb=1.5,timeout_min=9"
    options = slurm.read_options(said)
    cluster = slurm.SlurmCluster(1, options, tmp_path, (1, 0.0))
    assert cluster._options == {
        "slurm_partition": "gpu",
        "slurm_qos": "high",
        "mem_gb": 1.5,
        "timeout_min": 9,
    }
    cluster._submitter(tmp_path)
    assert not recwarn.list  # submitit warns of names that it will not know for long


def test_slurm_that_cannot_be_used_is_said_in_a_line(suite, tmp_path, quintain, monkeypatch):
    def said(*options):
        arguments = ["run", suite(), "--out", tmp_path / "out", "--device", "cpu", *options]
        return quintain(*arguments).error

    def provide(name, script):
        (tmp_path / "commands" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "commands" / name).chmod(0o755)

    (tmp_path / "commands").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "commands"))
    assert "say --executor slurm" in said("--slurm", "cluster=local")
    with monkeypatch.context() as patch:
        patch.setattr("quintain.bench.suite.executors.slurm.find_spec", lambda name: None)
        assert "pip install 'quintain[slurm]'" in said("--executor", "slurm")
    assert "there is no Slurm here" in said("--executor", "slurm")
    unknown = ("--executor", "slurm", "--slurm", "cluster=local,speed=9")
    assert "Unknown argument 'speed'" in said(*unknown)
    assert not (tmp_path / "out" / ".workers").exists()
    assert "names and values as in" in said("--executor", "slurm", "--slurm", "gpu")
    provide("srun", "exit 0")
    assert said("--executor", "slurm") == "--executor slurm: there is no command sacct"
    provide("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    assert said("--executor", "slurm") == (
        "--executor slurm needs sacct, to see when a worker is lost: "
        "Slurm accounting storage is disabled"
    )
    provide("sacct", "exit 0")
    provide("sbatch", "echo sbatch: error: invalid partition specified: gpu >&2; exit 1")
    refused = said("--executor", "slurm", "--slurm", "partition=gpu")
    assert refused == "Slurm takes no worker: sbatch: error: invalid partition specified: gpu"
    assert not (tmp_path / "out" / ".workers").exists()
