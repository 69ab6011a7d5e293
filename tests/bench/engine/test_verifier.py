import pytest
import torch
from torch import nn

from quintain.bench.engine.outcomes import Book
from quintain.bench.engine.verifier import Claim, Judge
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


def judge(examples=4, *, covers=True, keep=None, batch_size=16):
    network = Network(Threshold(), torch.device("cpu"), batch_size)
    book = Book.open(examples, len(RADII))
    goals = torch.zeros(examples, dtype=torch.int64)
    return Judge(
        network, book, goals, goals, RADII, "Linf", targeted=False, covers=covers, keep=keep
    )


def claim(owner, point, value):
    clean = torch.full((1, 2, 2), 0.5)
    return Claim(owner, point, clean, torch.full_like(clean, value))


@pytest.mark.parametrize("covers", [True, False])
def test_what_holds_is_booked_with_its_norm_and_kept(covers):
    kept = []
    one = judge(covers=covers, keep=lambda *found: kept.append(found))
    one.hear(claim(2, 1, 0.72))
    one.settle()
    assert one.book.broken[2].tolist() == [False, True, covers]
    assert not one.book.broken[[0, 1, 3]].any()
    assert one.book.distance[2] == pytest.approx(0.22)
    assert [(owner, point, float(x_adv[0, 0, 0])) for owner, point, x_adv in kept] == [
        (2, 1, pytest.approx(0.72))
    ]
    assert one.refuted == []


@pytest.mark.parametrize(
    ("point", "value"), [(2, 0.65), (0, 0.75), (2, float("nan")), (2, 1.5)]
)  # not fooled, outside the ball, no number, no image
def test_what_does_not_hold_is_neither_booked_nor_kept(point, value):
    one = judge(keep=lambda *_: pytest.fail("kept"))
    one.hear(claim(1, point, value))
    one.settle()
    assert not one.book.broken.any()
    assert one.refuted == [1]


def test_claims_are_settled_a_batch_at_a_time():
    one = judge(examples=60)
    for owner in range(60):
        one.hear(claim(owner, 2, 0.75))
    assert one.book.broken[:50, 2].all()  # two batches of 25
    assert not one.book.broken[50:].any()
    one.settle()
    assert one.book.broken[:, 2].all()
    asked = len(one.network.module.sizes)
    one.settle()  # nothing more to ask
    assert len(one.network.module.sizes) == asked


def test_the_smallest_of_several_claims_counts():
    one = judge(covers=False)
    for point, value in ((0, 0.72), (2, 0.75), (1, 0.71)):
        one.hear(claim(0, point, value))
    one.settle()
    assert one.book.broken[0].tolist() == [False, True, True]
    assert one.book.distance[0] == pytest.approx(0.21)
    assert one.refuted == [0]
