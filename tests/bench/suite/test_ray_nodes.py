"""A Ray cluster of two nodes, parts of which are lost: every cell once, tables as undisturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from .test_executors import MODELS, alive, cells, hashes
from .test_executors import one_cluster as _one_cluster
from .test_executors import suite as _suite

pytest.importorskip("ray", reason="RAY NODES WERE NOT TESTED: ray is missing")
suite, one_cluster = _suite, _one_cluster
ATTACKS = "".join(
    f'[[attacks]]\nname = "slow"\nlabel = "slow-{n}"\nsteps = {n}\n' for n in range(1, 5)
)
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # "0": Ray stays on 127.0.0.1, as the nodes do
COMMAND = str(Path(sys.executable).parent / "quintain")


@pytest.fixture
def cluster(one_cluster, suite, undisturbed, monkeypatch):
    """Two nodes on this machine, with one core each, whose workers see the environment of now."""
    monkeypatch.setenv("QUINTAIN_TEST_REST", "0.1")
    monkeypatch.setenv(LOOPBACK, "0")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster()
    made.nodes = [made.add_node(num_cpus=1, node_ip_address="127.0.0.1") for _ in range(2)]
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def undisturbed(suite, tmp_path, quintain):
    """The suite's file, with shards of 3 examples, and what one process makes of it as a whole."""
    path = suite(models=MODELS, attacks=ATTACKS)
    assert quintain("run", path, "--out", tmp_path / "whole", "--device", "cpu").code == 0
    suite(models=MODELS, attacks=ATTACKS, shard_examples="3")
    return path, tmp_path / "whole"


def lose_node(cluster):
    """Take away, by force, the node that is not the head; another one joins."""
    cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)
    cluster.nodes.append(cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1"))


def lose_worker(folder):
    """Kill a process that an attack was at work in, but not this one."""
    numbers = [int(one.name.partition("-")[2]) for one in folder.glob("pid-*")]
    there = [one for one in numbers if one != os.getpid() and os.path.exists(f"/proc/{one}")]
    if there:
        with suppress(ProcessLookupError):
            os.kill(random.choice(there), signal.SIGKILL)


def wait(ready):
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def arguments(path, out, cluster):
    common = ["run", str(path), "--out", str(out), "--device", "cpu"]
    return [*common, "--executor", "ray", "--address", cluster.address]


def test_a_node_is_lost_and_the_other_does_its_work(cluster, undisturbed, tmp_path, tables):
    path, whole = undisturbed
    out = tmp_path / "out"
    with subprocess.Popen([COMMAND, *arguments(path, out, cluster)]) as driver:
        wait(lambda: list(out.glob("records/*.parquet")) or list(out.glob("shards/*/*")))
        cluster.remove_node(cluster.nodes.pop(), allow_graceful=False)  # none takes its place
        assert driver.wait(200) == 0
    assert hashes(out) == hashes(whole)
    assert cells(out) == cells(whole)
    assert tables(out) == tables(whole)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")], ids=["as many as fit", "two"])
def test_a_node_that_joins_is_used(jobs, cluster, suite, undisturbed, tmp_path):
    path, whole = undisturbed
    suite(models=MODELS, attacks=ATTACKS, shard_examples="1")
    cluster.remove_node(cluster.nodes.pop())
    out = tmp_path / "out"
    with subprocess.Popen([COMMAND, *arguments(path, out, cluster), *jobs]) as driver:
        wait(lambda: len(alive(path.parent)) == 1)
        time.sleep(1.0)
        assert len(alive(path.parent)) == 1
        cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        wait(lambda: len(alive(path.parent)) == 2)
        assert driver.wait(200) == 0
    assert hashes(out) == hashes(whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_at_whatever_moment(seed, cluster, undisturbed, tmp_path, tables):
    path, whole = undisturbed
    out = tmp_path / "out"
    chance = random.Random(seed)
    what = ("worker", "node", "driver")[seed % 3]
    command = [COMMAND, *arguments(path, out, cluster)]
    with subprocess.Popen(command) as driver:
        wait(lambda: out.exists())
        time.sleep(chance.uniform(0.0, 8.0))
        if what == "worker":
            lose_worker(path.parent)
        elif what == "node":
            lose_node(cluster)
        else:
            driver.kill()
        code = driver.wait(300)
    assert code in ((0, -signal.SIGKILL) if what == "driver" else (0,))
    subprocess.run(command, check=True, timeout=300)
    assert hashes(out) == hashes(whole)
    assert cells(out) == cells(whole)
    assert tables(out) == tables(whole)
