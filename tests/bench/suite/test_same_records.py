"""Whoever does the work, whole cells or in shards: records identical to the byte."""

import hashlib
import shutil
import subprocess

import pytest

from .test_certified_suite import PLUGIN as CERTIFYING
from .test_executors import one_cluster as _one_cluster
from .test_ray_nodes import COMMAND
from .test_ray_nodes import cluster as _cluster

pytest.importorskip("submitit", reason="SLURM WORKERS WERE NOT COMPARED: submitit is missing")
cluster, one_cluster = _cluster, _one_cluster
TRAINED = '[[defenses]]\nname = "none"\nepochs = 1\naugmentation = "none"\n'
ATTACKS = """
[[attacks]]
name = "pgd"
steps = 4
restarts = 2
[[attacks]]
name = "deepfool"
[[attacks]]
name = "square"
query_budget = 40
"""
SUITES = {
    "transfer": {
        "transfer": "true",
        "models": '[[models]]\nname = "flat"\n[[models]]\nname = "flat"\nlabel = "b"\n',
        "defenses": TRAINED,
        "attacks": ATTACKS,
    },
    "certificates": {
        "models": '[[models]]\nname = "flat"\n',
        "defenses": '[[defenses]]\nname = "proved"\nboast = 3.0\n',
        "norm": '"L2"',
        "epsilons": "[0.1, 0.3, 0.6]",
        "attacks": ATTACKS,
    },
}


@pytest.fixture
def undisturbed(tmp_path, monkeypatch):
    """What the cluster's workers are to see."""
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def suite():
    """None: each test writes its own."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
def test_every_executor_writes_the_same_records(name, cluster, tmp_path, write_suite, tables):
    executors = {
        "one process": [],
        "two processes": ["--jobs", "2"],
        "two Ray nodes": ["--executor", "ray", "--address", cluster.address],
        "Slurm workers": ["--executor", "slurm", "--slurm", "cluster=local", "--jobs", "2"],
    }
    if shutil.which("srun") is not None:
        executors["a Slurm cluster"] = ["--executor", "slurm", "--jobs", "2"]
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "own.py").write_text(CERTIFYING)
    found = {}
    for shards in ({}, {"shard_examples": "7"}):
        settings = {"plugins": '["own.py"]', "n_examples": "20", "save_adversarials": "true"}
        path = write_suite(folder=folder, **settings, **SUITES[name], **shards)
        for title, options in executors.items():
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
            out = tmp_path / f"{title} {len(shards)}"
            run = [COMMAND, "run", str(path), "--out", str(out), "--device", "cpu", *options]
            subprocess.run(run, check=True, timeout=200)
            found[out.name] = written(out), tables(out)
    first = found["one process 0"]
    assert len(first[0]) == {"transfer": 2 * 4 * 3, "certificates": 3 * 3 + 1}[name]
    for title, each in found.items():
        assert each == first, title


def written(out):
    files = [*out.glob("records/*"), *out.glob("examples/*")]
    return {
        f"{one.parent.name}/{one.name}": hashlib.sha256(one.read_bytes()).hexdigest()
        for one in files
    }
