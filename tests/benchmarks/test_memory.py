"""How the peak of memory depends on the number of examples. Run by `pytest --benchmark-only`."""

import json
import subprocess
import sys

SCRIPT = """
import json, resource, sys, torch
from torch import nn
from quintain.attacks.white_box.pgd import PGD
from quintain.bench.engine.outcomes import Outcomes
from quintain.bench.engine.case import Case
from quintain.bench.engine.cell import assess
from quintain.bench.api.progress import Silent
from quintain.bench.api.rng import Draws
from quintain.bench.engine.config import AttackStage, CellConfig
from quintain.bench.api.threat import Epsilon

SHAPE = (3, 64, 64)

class Drawn:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def read(self, indices):
        zeros = torch.zeros_like(indices)
        return Draws(0, indices, zeros, zeros).uniform(SHAPE, "image")

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def run(count):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 10))
    images, rows = Drawn(count), torch.arange(count)
    with torch.no_grad():
        labels = torch.cat([module(images.read(part)).argmax(1) for part in rows.split(64)])
    grid = tuple(Epsilon.parse(round(0.0005 * one, 6)) for one in range(1, 33))
    case = Case(module, torch.device("cpu"), images, labels, rows)
    return assess(case, [AttackStage(PGD(steps=4))], CellConfig("Linf", grid), Silent(), 64)

run(256)
first = peak()
records = run(int(sys.argv[1])).records
used = records.memory_usage(deep=False).sum()
used += sum(sys.getsizeof(one) for name in ("broken", "attacked") for one in records[name])
outcomes = Outcomes(1000, 32)
print(json.dumps({"before": first, "peak": peak(), "records": int(used),
                  "outcomes": sum(one.nbytes for one in vars(outcomes).values()) / 1000}))
"""
PIXELS = 3 * 64 * 64 * 4  # bytes of an image


def peaks(count):
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(count)], capture_output=True, text=True, check=True
    )
    return json.loads(answer.stdout)


def test_ten_times_the_examples_take_no_more_than_their_records(benchmark):
    few = peaks(500)
    many = benchmark.pedantic(peaks, args=(5000,), rounds=1)
    benchmark.extra_info.update(few=few, many=many)
    grown = many["peak"] - few["peak"]
    added = many["records"] - few["records"]
    assert grown < 4500 * PIXELS / 8  # the images alone would be 221 MB
    assert grown < 3 * added + 20e6
