"""Start-up against importing torch, the one that every command could not do without.

Each round times both, one after the other, so that both see the machine in the same state.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

TORCH = [sys.executable, "-c", "import torch"]
COMMAND = str(Path(sys.executable).parent / "quintain")
ROUNDS = 9
LIMIT = 0.5


def seconds(command):
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


@pytest.mark.parametrize("arguments", ["--help", "list", "run --help"])
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
