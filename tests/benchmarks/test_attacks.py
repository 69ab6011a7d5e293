"""PGD: quintain, a bare loop, and every other library, one benchmark each."""

import pytest

from quintain.bench.tools.speed.benchmark import CURVES, grid
from quintain.bench.tools.speed.contenders import BARE, Quintain
from quintain.bench.tools.speed.measurements import robust_accuracy
from quintain.bench.tools.speed.peers import PEERS

STEPS = 20
# Those that are not installed fail, and say so: `tox -e bench` installs all of them.
RERUN = [BARE, *(peer for peer, _ in PEERS)]


def by_name(contenders):
    return [pytest.param(one, id=one.name) for one in contenders]


@pytest.mark.parametrize("contender", by_name([*RERUN, Quintain(whole=True)]))
@pytest.mark.parametrize("examples", [32, 128])
@pytest.mark.filterwarnings("ignore")
def test_one_epsilon(benchmark, timed, job, workload, contender, examples):
    benchmark.group = f"one epsilon, {examples} examples"
    work, epsilon = job(examples, STEPS), workload.epsilon / 2
    outcome = timed(contender, work, [epsilon])
    assert robust_accuracy(work, outcome.x_adv(0), epsilon) < 1


@pytest.mark.parametrize("contender", by_name([*RERUN, Quintain()]))
@pytest.mark.parametrize("points", CURVES.values())
@pytest.mark.filterwarnings("ignore")
def test_a_curve(benchmark, timed, job, workload, contender, points):
    benchmark.group = f"curve of {points} epsilons"
    work, epsilons = job(64, STEPS), grid(workload.epsilon, points)
    outcome = timed(contender, work, epsilons)
    assert robust_accuracy(work, outcome.x_adv(points - 1), epsilons[-1]) < 0.5
