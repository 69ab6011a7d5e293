"""The ways to a hyperplane beside linear programmes and a general optimiser."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from quintain.attacks.parts.hyperplane import way_to_plane
from quintain.bench.api.threat import NORMS, measure

D = 6


def problems(count=60, seed=0):
    """Images with pixels at 0 and 1, normals with zeros and ties, amounts near and far."""
    random = torch.Generator().manual_seed(seed)
    x = (1.4 * torch.rand(count, 1, 2, 3, generator=random) - 0.2).clamp(0.0, 1.0)
    normal = (4 * torch.randn(count, 1, 2, 3, generator=random)).round() / 4
    far = torch.rand(count, generator=random).double() * 1.2
    sign = torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
    return x, normal, sign * far * reach(x, normal, sign)


def reach(x, normal, sign):
    """The most that <normal, move> can be, towards the sign, within [0, 1]."""
    upwards = sign[:, None, None, None] * normal > 0
    room = torch.where(upwards, 1.0 - x.double(), x.double())
    return (normal.double().abs() * room).flatten(1).sum(1)


def shortest(x, normal, amount, norm):
    """The length that scipy finds, None where it finds no such move."""
    x, normal = (one.flatten().double().numpy() for one in (x, normal))
    bounds = list(zip(-x, 1.0 - x, strict=True))
    if norm == "L2":
        answer = minimize(
            lambda d: d @ d,
            np.zeros(D),
            jac=lambda d: 2 * d,
            bounds=bounds,
            constraints={
                "type": "eq",
                "fun": lambda d: normal @ d - amount,
                "jac": lambda d: normal,
            },
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return np.sqrt(answer.fun) if answer.success else None
    count = 1 if norm == "Linf" else D
    sizes = np.ones((D, 1)) if norm == "Linf" else np.eye(D)
    answer = linprog(
        np.concatenate([np.zeros(D), np.ones(count)]),
        np.block([[np.eye(D), -sizes], [-np.eye(D), -sizes]]),
        np.zeros(2 * D),
        np.concatenate([normal, np.zeros(count)])[None],
        [amount],
        bounds=bounds + [(0, None)] * count,
    )
    return answer.fun if answer.status == 0 else None


@pytest.mark.parametrize("norm", NORMS)
def test_no_move_within_the_box_is_shorter(norm):
    x, normal, amount = problems()
    move = way_to_plane(x, normal, amount, norm)
    within = amount.abs() <= reach(x, normal, amount.sign())
    assert 30 < within.sum() < 60
    gained = (normal.double() * move).flatten(1).sum(1)
    assert torch.allclose(gained[within], amount[within], rtol=1e-12, atol=1e-12)
    assert ((x + move >= -1e-15) & (x + move <= 1 + 1e-15)).all()
    for row in within.nonzero().flatten().tolist():
        best = shortest(x[row], normal[row], float(amount[row]), norm)
        assert measure(move[row : row + 1], norm).item() == pytest.approx(best, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_a_plane_out_of_reach_is_approached_as_far_as_the_box_allows(norm):
    x, normal, _ = problems()
    sign = torch.ones(len(x))
    most = reach(x, normal, sign)
    move = way_to_plane(x, normal, 2.0 * most + 1.0, norm)
    assert torch.allclose((normal.double() * move).flatten(1).sum(1), most, rtol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_without_the_box_the_length_is_the_amount_over_the_dual_norm(norm):
    x = torch.full((40, 1, 2, 3), 0.5)
    normal = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    amount = torch.full((40,), 0.05, dtype=torch.float64)
    dual = {"Linf": "L1", "L2": "L2", "L1": "Linf"}[norm]
    length = measure(way_to_plane(x, normal, amount, norm), norm)
    assert torch.allclose(length, amount / measure(normal, dual), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(NORMS), st.floats(1e-20, 1e20))
def test_the_scale_of_the_plane_does_not_matter(seed, norm, scale):
    x, normal, amount = problems(8, seed)
    move = way_to_plane(x.double(), normal.double(), amount, norm)
    scaled = way_to_plane(x.double(), scale * normal.double(), scale * amount, norm)
    assert torch.allclose(move, scaled, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_no_gradient_no_move_and_an_unknown_amount_only_spoils_its_row(norm):
    x, normal, amount = problems(3)
    normal[1] = 0.0
    amount = torch.stack([amount[0], amount[1] + 1.0, torch.tensor(torch.nan).double()])
    move = way_to_plane(x, normal, amount, norm)
    alone = way_to_plane(x[:1], normal[:1], amount[:1], norm)
    assert torch.equal(move[:1], alone)
    assert not move[1].any()
