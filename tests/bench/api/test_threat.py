import math

import numpy as np
import pytest
import torch
from builders import draws, random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import kstest

from quintain.bench.api.threat import NORMS, Epsilon, make_ball, measure, parse_grid, round_inwards

pixels = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-20, 2.0**-24]), st.floats(0, 1, width=32))
places = st.one_of(
    pixels, st.floats(-1e6, 1e6, width=32), st.integers(0, 2**24).map(lambda n: n * 2.0**-24)
)
# The last kind lies just below a distance that float32 can reach: rounding must not reach it.
radii = st.one_of(
    st.floats(math.log(1e-6), math.log(100)).map(math.exp),
    st.integers(17, 2**24).map(lambda n: math.nextafter(n * 2.0**-24, 0.0)),
)
norms = st.sampled_from(NORMS)


@st.composite
def problems(draw):
    """x (B, C, 1, 1), points alike, epsilon (B,)."""
    size = draw(st.integers(1, 6))
    batch = draw(st.integers(1, 3))

    def image(of):
        return draw(st.lists(st.lists(of, min_size=size, max_size=size), min_size=batch,
                             max_size=batch))  # fmt: skip

    x = torch.tensor(image(pixels), dtype=torch.float32)[:, :, None, None]
    points = torch.tensor(image(places), dtype=torch.float32)[:, :, None, None]
    epsilon = torch.tensor([draw(radii) for _ in range(batch)], dtype=torch.float64)
    return x, points, epsilon


def length(delta, norm):
    """Sum with a single rounding, by the standard library."""
    flat = [abs(float(one)) for one in delta.flatten()]
    sums = {"Linf": max, "L1": math.fsum, "L2": lambda d: math.sqrt(math.fsum(v * v for v in d))}
    return sums[norm](flat)


def around(norm, centre, epsilon, count, shape=(1, 2, 3)):
    x = torch.full((count, *shape), centre)
    return make_ball(norm, x, torch.full((count,), epsilon, dtype=torch.float64))


@given(problems(), norms)
@settings(max_examples=400, deadline=None)
def test_projections_lie_inside_without_tolerance(problem, norm):
    x, points, epsilon = problem
    projected = make_ball(norm, x, epsilon).project(points)
    assert projected.dtype == torch.float32
    assert (projected >= 0).all()
    assert (projected <= 1).all()
    for one, clean, radius in zip(projected.double(), x.double(), epsilon.tolist(), strict=True):
        assert length(one - clean, norm) <= radius


@given(problems(), norms)
@settings(max_examples=150, deadline=None)
def test_projecting_twice_changes_nothing_but_the_last_bit(problem, norm):
    x, points, epsilon = problem
    ball = make_ball(norm, x, epsilon)
    once = ball.project(points)
    twice = ball.project(once)
    # what is left of a coordinate of 1 is known to the last bit of 1, in float64
    assert torch.allclose(once, twice, rtol=1e-6, atol=1e-15)


@given(problems(), norms)
@settings(max_examples=100, deadline=None)
def test_each_example_has_its_own_epsilon(problem, norm):
    x, points, epsilon = problem
    together = make_ball(norm, x, epsilon).project(points)
    for row in range(len(x)):
        one = slice(row, row + 1)
        assert torch.equal(make_ball(norm, x[one], epsilon[one]).project(points[one])[0],
                           together[row])  # fmt: skip


@given(problems(), norms)
@settings(max_examples=100, deadline=None)
def test_points_inside_stay_where_they_are(problem, norm):
    x, points, epsilon = problem
    ball = make_ball(norm, x, 2 * epsilon)
    inside = make_ball(norm, x, epsilon).project(points)
    assert torch.allclose(ball.project(inside), inside, rtol=0, atol=1e-18)


@given(problems())
@settings(max_examples=150, deadline=None)
def test_linf_is_clipping_and_gives_nothing_away(problem):
    x, points, epsilon = problem
    ball = make_ball("Linf", x, epsilon)
    exact = points.double().numpy()
    clean, radius = x.double().numpy(), epsilon.numpy()[:, None, None, None]
    exact = np.clip(np.clip(exact, clean - radius, clean + radius), 0.0, 1.0)
    assert np.abs(ball.project(points).numpy() - exact).max() <= 2.0**-23
    for bound, beyond in ((ball.lower, -1.0), (ball.upper, 2.0)):
        outside = torch.nextafter(bound, torch.tensor(beyond))
        rim = epsilon[:, None, None, None] - 1e-15  # as sharp as float64 is
        too_far = (outside.double() - x.double()).abs() > rim
        assert (too_far | (outside < 0) | (outside > 1)).all()


def test_l2_is_the_nearest_point_where_the_box_is_far():
    generator = torch.Generator().manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(50, 3, 4, 4, generator=generator)
    points = x + 0.1 * torch.randn(x.shape, generator=generator)
    epsilon = torch.linspace(0.01, 0.35, 50, dtype=torch.float64)
    delta = (points.double() - x.double()).numpy().reshape(50, -1)
    shrunk = delta * np.minimum(1, epsilon.numpy() / np.linalg.norm(delta, axis=1))[:, None]
    found = make_ball("L2", x, epsilon).project(points).double().numpy().reshape(50, -1)
    assert np.abs(found - (x.double().numpy().reshape(50, -1) + shrunk)).max() < 1e-7


@pytest.mark.parametrize("seed", range(12))
def test_l1_is_the_nearest_point_that_a_solver_finds(seed):
    """No coordinate moves against its sign or past the box: sizes m, sum(m) <= epsilon."""
    rng = np.random.default_rng(seed)
    x = np.float32(rng.choice([rng.random(5), np.round(rng.random(5))]))
    points = np.float32(x + rng.normal(0, 0.6, 5))
    epsilon = float(rng.uniform(0.05, 1.5))
    delta = points.astype(float) - x
    room = np.where(delta > 0, 1.0 - x, x)
    solved = minimize(
        lambda m: ((m - np.abs(delta)) ** 2).sum(),
        np.zeros(5),
        jac=lambda m: 2 * (m - np.abs(delta)),
        bounds=list(zip(np.zeros(5), room, strict=True)),
        constraints={"type": "ineq", "fun": lambda m: epsilon - m.sum()},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert solved.success
    ball = make_ball("L1", torch.from_numpy(x).reshape(1, 5, 1, 1), torch.tensor([epsilon]))
    found = ball.project(torch.from_numpy(points).reshape(1, 5, 1, 1)).numpy().flatten()
    assert np.abs(found - (x + np.sign(delta) * solved.x)).max() < 1e-5


@given(problems(), st.sampled_from(["Linf", "L2"]))
@settings(max_examples=150, deadline=None)
def test_no_direction_of_unit_norm_is_steeper(problem, norm):
    _, gradient, _ = problem
    ball = make_ball(norm, torch.full_like(gradient, 0.5), torch.ones(len(gradient)))
    direction = ball.steepest(gradient, ball.x).double().flatten(1)
    slope = gradient.double().flatten(1)
    best = slope.norm(p=1 if norm == "Linf" else 2, dim=1)
    assert torch.allclose((direction * slope).sum(1), best, rtol=1e-5, atol=1e-30)
    assert (measure(direction, norm) <= 1 + 1e-6).all()


@pytest.mark.parametrize("size", [1e30, 1e-20, 1e-38])
def test_l2_steepest_has_unit_length_whatever_the_gradient(size):
    gradient = size * torch.tensor([3.0, -4.0]).reshape(1, 2, 1, 1)
    direction = make_ball("L2", torch.zeros(1, 2, 1, 1), torch.ones(1)).steepest(gradient, gradient)
    assert torch.allclose(direction.flatten(), torch.tensor([0.6, -0.8]), atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_gradient_there_is_no_direction(norm):
    ball = around(norm, 0.5, 0.1, 1)
    assert ball.steepest(torch.zeros(1, 1, 2, 3), ball.x).abs().sum() == 0


def test_l1_steepest_moves_the_largest_coordinates_that_are_free():
    gradient = torch.arange(1.0, 41.0).reshape(1, 1, 4, 10)
    points = torch.full((1, 1, 4, 10), 0.5)
    points[0, 0, 3, 9] = 1.0  # 40, the largest, has nowhere to go
    ball = make_ball("L1", points, torch.ones(1))
    expected = torch.zeros(40)
    expected[37:39] = 0.5  # 5% of 40 coordinates
    assert torch.equal(ball.steepest(gradient, points).flatten(), expected)
    assert ball.steepest(-gradient, points).flatten()[39] == -0.5


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", [1e-6, 0.03, 100.0])
def test_random_starts_are_inside_and_differ(norm, epsilon):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(40, 1, 4, 5, generator=generator).round(decimals=1)
    ball = make_ball(norm, x, torch.full((40,), epsilon, dtype=torch.float64))
    start = ball.random(draws(40))
    assert ball.contains(start).all()
    assert len({tuple(one.tolist()) for one in (start - x).flatten(1)}) == 40


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_fill_the_ball_evenly(norm):
    """The share of the volume within r of the centre is (r / epsilon) ** dimensions."""
    ball = around(norm, 0.5, 0.4, 4000)
    delta = ball.random(draws(4000, seed=5)).double() - 0.5
    shares = (measure(delta, norm) / 0.4) ** 6
    assert kstest(shares.numpy(), "uniform").pvalue > 0.01
    assert abs(delta.mean().item()) < 0.01


@pytest.mark.parametrize("norm", NORMS)
def test_contains_is_strict(norm):
    ball = around(norm, 0.5, 0.25, 4, (1, 1, 2))
    points = torch.full((4, 1, 1, 2), 0.5)
    points[0, 0, 0, 0] = 0.75
    points[1, 0, 0, 0] = torch.nextafter(torch.tensor(0.75), torch.tensor(1.0))
    points[2, 0, 0, 0] = torch.nan
    assert ball.contains(points).tolist() == [True, False, False, True]
    far = around(norm, 1.0, 9.0, 1, (1, 1, 1))
    assert not far.contains(torch.full((1, 1, 1, 1), 1.0000001)).any()


@given(pixels, st.floats(-1, 1))
@settings(max_examples=200, deadline=None)
def test_rounding_never_moves_further(x, delta):
    start = torch.tensor([x], dtype=torch.float32)
    rounded = round_inwards(start, torch.tensor([delta], dtype=torch.float64))
    assert abs(rounded.double() - start.double()).item() <= abs(delta)
    assert abs(rounded.double().item() - (start.double().item() + delta)) <= 2.0**-23


@pytest.mark.parametrize("norm", NORMS)
def test_measure_is_the_norm(norm):
    delta = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    order = {"Linf": np.inf, "L2": 2, "L1": 1}[norm]
    expected = np.linalg.norm(delta.double().numpy().reshape(5, -1), ord=order, axis=1)
    assert np.allclose(measure(delta, norm).numpy(), expected, rtol=1e-14)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"'L7' is not one of Linf, L2, L1"):
        make_ball("L7", torch.zeros(1, 1, 1, 1), torch.ones(1))


@pytest.mark.parametrize(
    ("written", "text", "value"),
    [
        ("8/255", "8/255", 8 / 255),
        (" 8/255 ", "8/255", 8 / 255),
        ("0.031", "0.031", 0.031),
        (0.031, "0.031", 0.031),
        ("1e-3", "1e-3", 0.001),
        (2, "2", 2.0),
    ],
)
def test_epsilons_keep_their_text(written, text, value):
    parsed = Epsilon.parse(written)
    assert (parsed.text, parsed.value) == (text, value)
    assert Epsilon.parse(parsed) is parsed


@pytest.mark.parametrize(
    "written", ["", "eight", "8/0", "8//255", float("nan"), "inf", "1e999", True, None, [0.1]]
)
def test_what_is_no_number_is_no_epsilon(written):
    with pytest.raises(ValueError, match="is not a number such as"):
        Epsilon.parse(written)


@pytest.mark.parametrize("written", [0, "0", -0.1, "-8/255", "1e-400"])
def test_epsilons_are_positive(written):
    with pytest.raises(ValueError, match="must be positive"):
        Epsilon.parse(written)


def test_a_grid_is_sorted_and_names_nothing_twice():
    grid = parse_grid(["8/255", 0.031, "2/255"])
    assert [one.text for one in grid] == ["2/255", "0.031", "8/255"]
    with pytest.raises(ValueError, match=r"twice: 0\.5 and 1/2"):
        parse_grid([0.5, "1/2"])
    for written in ([], "8/255", 0.1):
        with pytest.raises(ValueError, match="epsilons"):
            parse_grid(written)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_pace_lengthens_steps_and_leaves_the_ball_as_it_is(norm):
    x = torch.full((2, 1, 4, 4), 0.5)
    ball = make_ball(norm, x, torch.tensor([0.1, 0.1], dtype=torch.float64))
    ball.step_multiplier[1] = 5.0
    assert ball.radius.flatten().tolist() == pytest.approx([0.1, 0.5])
    assert ball.contains(ball.project(torch.ones_like(x))).all()


def test_linf_bounds_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    x = random_images(7, 3, 5, 5)
    epsilon = torch.linspace(0.01, 0.5, 7, dtype=torch.float64)
    whole = make_ball("Linf", x, epsilon)
    monkeypatch.setattr("quintain.bench.api.threat.PIXELS_AT_ONCE", 160)
    parts = make_ball("Linf", x, epsilon)
    assert torch.equal(parts.lower, whole.lower)
    assert torch.equal(parts.upper, whole.upper)
    assert parts.lower.stride() == whole.lower.stride()
    assert make_ball("Linf", x[:0], epsilon[:0]).lower.shape == (0, 3, 5, 5)
