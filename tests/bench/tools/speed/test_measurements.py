"""Scores: ratios, scaling and accuracies, on a fake clock and on real work."""

from dataclasses import dataclass, field

import pytest

from quintain.bench.tools.speed.contenders import BARE, Outcome, Quintain
from quintain.bench.tools.speed.measurements import measure_attack, measure_queries

GRID = (0.05, 0.1, 0.15, 0.2)


@dataclass
class Timed:
    """Moves a clock by a price for each epsilon, and adversarial examples nothing."""

    name: str
    price: float
    clock: list
    one_price: bool = True
    counts: bool = False
    version: str = "0"
    calls: list = field(default_factory=list)

    def attack(self, job, epsilons):
        self.calls.append(tuple(epsilons))
        self.clock[0] += self.price * len(epsilons)
        return Outcome(lambda number: job.x, (4.0 * len(epsilons), 3.0 * len(epsilons)))


def measure(job, sampled, grid=GRID):
    clock = [0.0]
    contenders = [
        Timed("bare loop", 2.0, clock),
        Timed("quintain", 1.0, clock, one_price=False),
        Timed("peer", 3.0, clock),
    ]
    scores = measure_attack(
        "curve", job, grid, contenders, repeats=3, sampled=sampled, clock=lambda: clock[0]
    )
    return contenders, {one.contender: one for one in scores}


@pytest.mark.parametrize("sampled", [True, False])
def test_ratios_and_passes_are_those_of_the_whole_curve(job, sampled):
    _, scores = measure(job, sampled)
    assert {name: one.ratio.median for name, one in scores.items()} == {
        "bare loop": 1.0, "quintain": 0.5, "peer": 1.5,
    }  # fmt: skip
    assert scores["peer"].seconds == (12.0, 12.0, 12.0)
    assert {(one.forward, one.backward) for one in scores.values()} == {(16.0, 12.0)}
    assert scores["peer"].runs_worth == pytest.approx(28 / 9)


def test_only_who_pays_one_price_is_sampled_and_it_says_so(job):
    contenders, scores = measure(job, sampled=True)
    assert contenders[0].calls == contenders[2].calls == [(0.15,)] * 4  # one round to warm up
    assert contenders[1].calls == [GRID] * 4
    assert [scores[name].timed for name in ("bare loop", "quintain", "peer")] == [1, 4, 1]
    assert scores["peer"].robust == (None, None, 1.0, None)
    assert scores["quintain"].robust == (1.0,) * 4


def test_everything_is_run_when_asked_for(job):
    contenders, scores = measure(job, sampled=False)
    assert all(one.calls == [GRID] * 4 for one in contenders)
    assert all(one.timed == 4 for one in scores.values())


def test_real_contenders_do_the_same_work(job):
    bare, ours = measure_attack(
        "one-epsilon", job, [0.12], [BARE, Quintain(whole=True)],
        repeats=1, sampled=False, clock=iter(range(100)).__next__,
    )  # fmt: skip
    assert (bare.forward, bare.backward, ours.backward) == (4, 4, 4)
    assert bare.ratio.median == 1
    assert ours.robust[0] == pytest.approx(bare.robust[0], abs=0.1)
    assert bare.robust[0] < 1


def test_queries_are_compared_with_as_many_images(job):
    bare, ours = measure_queries(
        job, 0.05, coordinates=4, repeats=1, clock=iter(range(100)).__next__
    )
    assert bare.contender == "bare loop"
    assert bare.forward == pytest.approx(ours.forward)
    assert ours.forward >= 2 * 4 * 4
    assert bare.backward == ours.backward == 0
    assert bare.robust == (None,)
