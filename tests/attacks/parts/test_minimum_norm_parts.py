"""The parts of minimum-norm attacks: constants, moments, schedules, planes."""

import math

import pytest
import torch
from torch import nn

from quintain.attacks.parts.adam_moments import Moments
from quintain.attacks.parts.linearised import ranked_classes
from quintain.attacks.parts.minimum_norm import annealed, farthest
from quintain.attacks.parts.penalty_search import ConstantSearch, Rounds
from quintain.attacks.parts.tanh_space import pulled_back, to_images, to_tanh_space
from quintain.bench import evaluate
from quintain.bench.api.threat import unit


def test_the_constant_grows_until_one_succeeds_and_then_closes_in():
    """Three examples that need at least 0.04, 7 and 1e9."""
    needed, plan = torch.tensor([0.04, 7.0, 1e9]).double(), Rounds(steps=27, rounds=9)
    search = ConstantSearch.open(torch.zeros(3), 0.1)
    seen = []
    for step in range(27):
        search = plan.begun(search, torch.full((3,), step))
        search.found = search.found | (search.constant >= needed)
        if step % 3 == 2:
            seen.append(search.constant.tolist())
    first, second, third = zip(*seen, strict=True)
    assert first[:4] == pytest.approx((0.1, 0.05, 0.025, 0.0375))
    assert second[:4] == pytest.approx((0.1, 1.0, 10.0, 5.5))
    assert second[-1] == pytest.approx(7.0, abs=0.2)
    assert third == pytest.approx([0.1 * 10.0**power for power in range(9)])


def test_of_ten_rounds_the_last_repeats_the_smallest_constant_that_succeeded():
    plan = Rounds(steps=10, rounds=10)
    search = ConstantSearch.open(torch.zeros(1), 1.0)
    tried = []
    for step in range(10):
        search = plan.begun(search, torch.tensor([step]))
        search.found = search.constant >= 0.7
        tried.append(search.constant.item())
    assert tried[-1] == min(one for one in tried[:-1] if one >= 0.7)


def test_rounds_share_the_steps_and_the_last_takes_what_is_left():
    plan = Rounds(steps=11, rounds=3)
    assert plan.iteration(torch.arange(11)).tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4]


def test_moments_step_as_torch_does():
    start = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    ours, moments = start.clone(), Moments.zero(start)
    for iteration in range(20):
        optimizer.zero_grad()
        theirs.pow(4).sum().backward()
        optimizer.step()
        moments, step = moments.taken_in(4 * ours.pow(3), torch.full((2,), iteration))
        ours = ours - 0.1 * step
    assert torch.allclose(ours, theirs.detach(), rtol=1e-9)


def test_moments_are_forgotten_in_some_rows_only():
    moments = Moments(torch.ones(3, 2), torch.ones(3, 2)).forgotten(torch.tensor([0, 1, 0]).bool())
    assert moments.first.tolist() == moments.second.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_annealing_goes_from_first_to_last_along_half_a_cosine():
    sizes = annealed(torch.tensor([0, 25, 50, 100]), 100, 1.0, 0.2)
    assert sizes.tolist() == pytest.approx([1.0, 0.2 + 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.2])


def test_a_unit_is_one_long_however_small_and_zero_stays_zero():
    direction = torch.tensor([[3e-25, 4e-25], [3.0, -4.0], [0.0, 0.0]])
    assert torch.allclose(unit(direction), torch.tensor([[0.6, 0.8], [0.6, -0.8], [0.0, 0.0]]))


@pytest.mark.parametrize(("norm", "far"), [("Linf", 1.0), ("L2", 1.25), ("L1", 1.75)])
def test_the_farthest_corner(norm, far):
    assert farthest(torch.tensor([[0.25, 1.0]]), norm).item() == pytest.approx(far)


def test_images_survive_the_way_to_tanh_space_and_back():
    x = torch.linspace(0.0, 1.0, 101)
    w = to_tanh_space(x).requires_grad_()
    images = to_images(w)
    assert w.isfinite().all()
    assert torch.allclose(images, x, atol=1e-6)
    (slope,) = torch.autograd.grad(images.sum(), w)
    assert torch.allclose(pulled_back(torch.ones(101), images.detach()), slope, atol=1e-6)


def test_classes_are_ranked_by_their_logits_without_the_label():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]])
    assert ranked_classes(logits, torch.tensor([0, 1]), 10).tolist() == [[2, 1], [2, 0]]
    assert ranked_classes(logits, torch.tensor([2, 0]), 1).tolist() == [[0], [1]]


class Plateau(nn.Module):
    """Another class only where pixels are together more than 1 off 0.5; flat around that."""

    def forward(self, x):
        away = (x - 0.5).abs().flatten(1).sum(1)
        return torch.stack([torch.ones_like(away), 10.0 * (away - 1.0).relu()], dim=1)


def test_ddn_leaves_a_point_without_gradient_in_a_random_direction():
    x = torch.full((3, 1, 4, 4), 0.5)
    run = evaluate(
        Plateau(), x, torch.zeros(3, dtype=torch.int64), "ddn", norm="L2", epsilons=[1e-6, 4.0]
    )
    assert (run.records["distance"] < 0.6).all()
    assert len(run.adversarials(4.0).flatten(1).unique(dim=0)) == 3
