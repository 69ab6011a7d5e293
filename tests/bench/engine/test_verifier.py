import pytest
import torch
from torch import nn

from quintain.bench.engine.outcomes import Outcomes
from quintain.bench.engine.verifier import Candidate, Verifier
from quintain.bench.victim.model import Network

RADII = (0.1, 0.25, 0.3)


class Threshold(nn.Module):
    """Class 1 where the mean is at least 0.7, else class 0; remembers how many it was shown."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        mean = x.flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([0.7 - mean, mean - 0.7], dim=1)


def verifier(examples=4, *, covers=True, keep=None, batch_size=16):
    network = Network(Threshold(), torch.device("cpu"), batch_size)
    outcomes = Outcomes(examples, len(RADII))
    goals = torch.zeros(examples, dtype=torch.int64)
    return Verifier(
        network, outcomes, goals, goals, RADII, "Linf", targeted=False, covers=covers, keep=keep
    )


def candidate(owner, point, value):
    clean = torch.full((1, 2, 2), 0.5)
    return Candidate(owner, point, clean, torch.full_like(clean, value))


@pytest.mark.parametrize("covers", [True, False])
def test_what_holds_is_recorded_with_its_norm_and_kept(covers):
    kept = []
    one = verifier(covers=covers, keep=lambda *found: kept.append(found))
    one.add(candidate(2, 1, 0.72))
    one.flush()
    assert one.outcomes.broken[2].tolist() == [False, True, covers]
    assert not one.outcomes.broken[[0, 1, 3]].any()
    assert one.outcomes.distance[2] == pytest.approx(0.22)
    [(owner, point, x_adv, distance)] = kept
    assert (owner, point) == (2, 1)
    assert (float(x_adv[0, 0, 0]), distance) == pytest.approx((0.72, 0.22))
    assert one.not_reproduced == []


@pytest.mark.parametrize(
    ("point", "value"), [(2, 0.65), (0, 0.75), (2, float("nan")), (2, 1.5)]
)  # not fooled, outside the ball, no number, no image
def test_what_does_not_hold_is_neither_recorded_nor_kept(point, value):
    one = verifier(keep=lambda *_: pytest.fail("kept"))
    one.add(candidate(1, point, value))
    one.flush()
    assert not one.outcomes.broken.any()
    assert one.not_reproduced == [1]


def test_candidates_are_settled_a_batch_at_a_time():
    one = verifier(examples=60)
    for owner in range(60):
        one.add(candidate(owner, 2, 0.75))
    assert one.outcomes.broken[:50, 2].all()  # two batches of 25
    assert not one.outcomes.broken[50:].any()
    one.flush()
    assert one.outcomes.broken[:, 2].all()
    asked = len(one.network.module.sizes)
    one.flush()  # nothing more to ask
    assert len(one.network.module.sizes) == asked


def test_the_smallest_of_several_candidates_counts():
    one = verifier(covers=False)
    for point, value in ((0, 0.72), (2, 0.75), (1, 0.71)):
        one.add(candidate(0, point, value))
    one.flush()
    assert one.outcomes.broken[0].tolist() == [False, True, True]
    assert one.outcomes.distance[0] == pytest.approx(0.21)
    assert one.not_reproduced == [0]
