from itertools import pairwise

import pytest
import torch
from builders import Scores, first_logit, problem_at

from quintain.attacks.gradients.finite_differences import FiniteDifferences
from quintain.attacks.parts.losses import CrossEntropy
from quintain.bench.api.errors import BadParameter

WEIGHT = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def smooth(x):
    """(N, 3, 2, 2) -> (N, 3) float64: infinitely differentiable, nowhere linear."""
    return torch.sin(3.0 * x.double().flatten(1) @ WEIGHT)


def straight(x):
    return x.double().flatten(1) @ WEIGHT


def estimate(source, x, *, function=smooth, loss=None, step=0, targeted=False):
    """The estimate, and the victim that was asked."""
    y = torch.arange(len(x)) % 3
    at = problem_at(x, Scores(function, len(x)), y=y, targeted=targeted, epsilon=1.0, step=step)
    return source(at, x, loss or CrossEntropy()), at.victim


def exact(x, *, function=smooth, loss=None, targeted=False):
    x = x.double().requires_grad_()
    values = (loss or CrossEntropy())(function(x), torch.arange(len(x)) % 3, targeted=targeted)
    return torch.autograd.grad(values.sum(), x)[0]


@pytest.fixture
def x():
    """Points that float32 holds exactly even when moved by the spacings used here."""
    generator = torch.Generator().manual_seed(1)
    return 0.25 + torch.randint(0, 2**10, (5, 3, 2, 2), generator=generator) * 2.0**-11


@pytest.mark.parametrize("targeted", [False, True])
def test_the_error_falls_with_the_square_of_the_spacing(x, targeted):
    errors = [
        (estimate(FiniteDifferences(spacing=h), x, targeted=targeted)[0].double()
         - exact(x, targeted=targeted)).norm().item()
        for h in (2.0**-4, 2.0**-5, 2.0**-6, 2.0**-7)
    ]  # fmt: skip
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4.0, rel=0.15)
    assert errors[-1] < 1e-2 * exact(x).norm().item()


def test_it_is_exact_where_the_loss_is_straight(x):
    found, _ = estimate(FiniteDifferences(spacing=0.25), x, function=straight, loss=first_logit)
    assert torch.allclose(found.double(), exact(x, function=straight, loss=first_logit), atol=1e-6)


def test_at_the_border_the_quotient_is_over_the_distance_moved():
    x = torch.tensor([0.0, 1.0, 0.005, 0.995, 0.5, 0.01] * 2).reshape(1, 3, 2, 2)
    found, victim = estimate(
        FiniteDifferences(spacing=0.01), x, function=straight, loss=first_logit
    )
    assert torch.allclose(found.double(), exact(x, function=straight, loss=first_logit), atol=1e-5)
    probes = victim.points[0]
    assert probes.min() >= 0.0
    assert probes.max() <= 1.0


@pytest.mark.parametrize(("coordinates", "queries"), [(None, 24), (5, 10), (1, 2), (99, 24)])
def test_two_queries_for_each_coordinate(x, coordinates, queries):
    found, victim = estimate(FiniteDifferences(coordinates=coordinates), x)
    assert victim.asked.tolist() == [queries] * 5
    assert ((found != 0).flatten(1).sum(1) == queries // 2).all()


def test_a_subset_is_right_where_it_was_drawn_and_zero_elsewhere(x):
    found, victim = estimate(FiniteDifferences(coordinates=4, spacing=2.0**-7), x)
    whole, _ = estimate(FiniteDifferences(spacing=2.0**-7), x)
    drawn = found != 0
    assert torch.equal(found[drawn], whole[drawn])
    probes, rows = victim.points[0], victim.rows[0]
    moved = (probes != x[rows]).flatten(1)
    assert (moved.sum(1) == 1).all()
    touched = torch.zeros(5, 12).index_add(0, rows, moved.float()) > 0
    assert torch.equal(touched, drawn.flatten(1))


def test_subsets_differ_between_examples_and_steps_and_cover_everything():
    x = torch.full((4, 3, 2, 2), 0.5)
    drawn = [
        estimate(FiniteDifferences(coordinates=3), x, step=step)[0].flatten(1) != 0
        for step in range(40)
    ]
    assert len({tuple(one.tolist()) for one in drawn[0]}) > 1
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], estimate(FiniteDifferences(coordinates=3), x)[0].flatten(1) != 0)
    assert torch.stack(drawn).any(dim=0).all()


def test_it_may_ask_in_parts(x, monkeypatch):
    """So that the probes of large images fit in memory."""
    whole, _ = estimate(FiniteDifferences(), x)
    monkeypatch.setattr("quintain.attacks.gradients.finite_differences.PROBES_AT_ONCE", 500)
    parts, victim = estimate(FiniteDifferences(), x)
    assert len(victim.points) > 1
    assert max(probes.numel() for probes in victim.points) <= 500
    assert torch.equal(parts, whole)
    assert victim.asked.tolist() == [24] * 5


@pytest.mark.parametrize(
    "given", [{"coordinates": 0}, {"spacing": 0.0}, {"spacing": 0.6}, {"spacing": -0.1}]
)
def test_parameters_that_make_no_gradient_are_refused(given):
    (name,) = given
    with pytest.raises(BadParameter, match=name):
        FiniteDifferences(**given)
