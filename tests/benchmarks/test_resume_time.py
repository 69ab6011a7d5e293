"""How long it takes to see that nothing is left to do. Run by `pytest --benchmark-only`."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from quintain.bench.api import registry
from quintain.bench.store.run_directory import RunDirectory
from quintain.bench.suite.config import read_suite
from quintain.bench.suite.keys import Keys
from quintain.bench.suite.plan import make_plan
from quintain.bench.suite.resume import CompletedCells

COMMAND = str(Path(sys.executable).parent / "quintain")
RUN = [COMMAND, "run", "suite.toml", "--out", "out", "--device", "cpu"]
SHAPES = [(50, 10, 20), (1, 1, 10_000)]
LIMIT = 5.0  # seconds of processor time: what else the machine does is no part of it


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def made(request, fabricate, tmp_path_factory):
    """The suite's file. To make one takes minutes; the last test leaves it as it was."""
    folder = tmp_path_factory.mktemp("many")
    with registry.temporary():
        return fabricate(folder, *request.param)


@pytest.fixture
def suite(made, monkeypatch):
    monkeypatch.setenv("QUINTAIN_CACHE", str(made.parent / "cache"))
    monkeypatch.chdir(made.parent)
    return made


def test_deciding_that_10000_cells_are_finished(suite, benchmark):
    def decide():
        began = time.process_time()
        with registry.temporary():
            parsed, _, folder = read_suite(str(suite))
            keys = Keys(make_plan(parsed, suite.name, folder), torch.device("cpu"))
            completed = CompletedCells(keys, RunDirectory(folder / "out"), folder / "cache")
        taken.append(time.process_time() - began)
        assert not completed.unfinished(keys.plan)

    taken = []
    benchmark.pedantic(decide, rounds=3, warmup_rounds=1)
    benchmark.extra_info["processor_seconds"] = min(taken)
    assert min(taken) < LIMIT


def test_the_command_on_10000_finished_cells(suite, benchmark):
    def run():
        before = os.times()
        answer = subprocess.run(RUN, capture_output=True, text=True, check=True)
        after = os.times()
        taken.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
        assert "10000 of 10000 cells done (10000 were there already)" in answer.stdout

    taken = []
    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    benchmark.extra_info["processor_seconds"] = min(taken)


def test_the_command_when_one_cell_of_10000_is_missing(suite, benchmark):
    out = suite.parent / "out"

    def lose():
        min((out / "records").glob("*-pgd_1-*.parquet")).unlink()

    def run():
        answer = subprocess.run(RUN, capture_output=True, text=True, check=True)
        assert "(9999 were there already)" in answer.stdout

    benchmark.pedantic(run, setup=lose, rounds=1)
