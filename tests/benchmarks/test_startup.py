"""Start-up against importing torch, the one that every command could not do without.

Each round times both, one after the other, so that both see the machine in the same state.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quintain.bench.api import registry

TORCH = [sys.executable, "-c", "import torch"]
COMMAND = str(Path(sys.executable).parent / "quintain")
ROUNDS = 9
LIMIT = 0.5
NOTHING_TO_DO = 1.0  # seconds of processor time beyond importing torch


def seconds(command):
    began = time.perf_counter()
    subprocess.run(command, check=False, capture_output=True)
    return time.perf_counter() - began


def processor_seconds(command, folder):
    before = os.times()
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    after = os.times()
    return (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )


@pytest.mark.parametrize(
    "arguments",
    ["--help", "list", "run --help", "run nosuch.toml", "leaderboard nosuch", "check nosuch"],
)
def test_starting_takes_less_than_half_of_importing_torch(arguments, benchmark):
    command = [COMMAND, *arguments.split()]
    ratios = []

    def round_of_both():
        ratios.append(seconds(command) / seconds(TORCH))

    benchmark.pedantic(round_of_both, rounds=ROUNDS, warmup_rounds=1)
    ratios = sorted(ratios[1:])
    benchmark.extra_info |= {
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
    }
    assert statistics.median(ratios) < LIMIT


def test_a_run_with_nothing_left_to_do(fabricate, tmp_path, monkeypatch, benchmark):
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))
    with registry.temporary():
        suite = fabricate(tmp_path, 1, 1, 1)
    command = [COMMAND, "run", suite.name, "--out", "out", "--device", "cpu"]
    beyond = []

    def round_of_both():
        torch = processor_seconds(TORCH, tmp_path)
        beyond.append(processor_seconds(command, tmp_path) - torch)

    benchmark.pedantic(round_of_both, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info |= {"median": statistics.median(beyond), "lowest": min(beyond)}
    assert min(beyond) < NOTHING_TO_DO
