"""The Square attack: its schedule, its windows, and what it breaks."""

import numpy as np
import pytest
import torch
from builders import problem_at

from quintain.attacks.black_box.square import Square
from quintain.attacks.parts.square_patches import place_windows, tiled_start, window_shapes, within
from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.rng import Draws
from quintain.bench.api.threat import NORMS, measure


class FirstPixels:
    """A victim whose margin for class 1 is the mean of the top row; it counts its queries."""

    access = "score"

    def __init__(self, count):
        self.asked = torch.zeros(count, dtype=torch.int64)
        self.points = []

    def scores(self, x, rows=None):
        self.asked += 1
        self.points.append(x)
        high = x[:, :, 0].flatten(1).mean(dim=1)
        return torch.stack([1.0 - high, high], dim=1)


def problem(norm="Linf", count=3, step=0, epsilon=0.1, shape=(3, 8, 8)):
    x = torch.full((count, *shape), 0.5)
    return problem_at(x, FirstPixels(count), norm=norm, epsilon=epsilon, step=step)


# The paper's schedule: of 10,000 candidates, from which one on the share has been halved how often.
SCHEDULE = {0: 0, 10: 0, 11: 1, 50: 1, 51: 2, 201: 3, 501: 4, 1001: 5, 2001: 6, 4001: 7, 6001: 8,
            8001: 9, 9999: 9}  # fmt: skip


def sides(attack, steps, norm="Linf", side=100):
    """Side of the square at some steps."""
    at = problem(norm, count=len(steps), shape=(1, side, side))
    at.step = torch.tensor(steps)
    return attack._side(at, norm)


def test_squares_shrink_by_the_papers_schedule_scaled_to_the_steps():
    expected = [round((0.8 / 2**halvings * 10_000) ** 0.5) for halvings in SCHEDULE.values()]
    steps = [1 + candidate for candidate in SCHEDULE]  # the first query is for the start
    assert sides(Square(steps=10_001), steps).tolist() == expected
    assert sides(Square(steps=20_001), [2 * one - 1 for one in steps]).tolist() == expected
    assert sides(Square(steps=5001, scheduled_over=10_000), steps).tolist() == expected
    last = [0, 900, 999]
    assert (sides(Square(steps=1000), last, "L2") % 2 == 1).all()
    assert sides(Square(steps=1000), last, "L2", 8).tolist() == [7, 3, 3]
    assert sides(Square(steps=1000), last, "L1", 8).tolist() == [7, 3, 3]


def test_as_published_squares_spare_the_last_row_and_column_and_may_change_nothing():
    at = problem(count=400, step=4000, shape=(1, 8, 8))
    attack = Square(steps=5001, scheduled_over=10_000, published=True)
    before = attack.start(at).x_adv
    changed = (attack._square(at, before) != before).flatten(0, 1)
    assert not changed[:, -1].any()
    assert not changed[:, :, -1].any()
    assert 100 < changed.flatten(1).any(dim=1).sum() < 300  # half of the signs are there already
    windows = place_windows(problem("L2", count=400, shape=(1, 8, 8)), before,
                            torch.full((400,), 3), last=False)  # fmt: skip
    assert ((windows - 0.5)[..., -1, :].abs() <= (before - 0.5)[..., -1, :].abs() * 1.5).all()


def test_it_begins_with_stripes_at_the_edge_of_the_cube():
    start = Square().start(problem()).x_adv - 0.5
    assert torch.allclose(start.abs(), torch.full_like(start, 0.1), atol=1e-6)
    assert torch.equal(start, start[:, :, :1].expand_as(start))
    assert len(start.flatten(1).unique(dim=0)) == 3


def test_one_query_a_step_and_the_first_for_the_start():
    attack, at = Square(steps=5), problem()
    state = attack.start(at)
    assert at.victim.asked.tolist() == [0, 0, 0]
    start = state.x_adv
    for step in range(5):
        at.step, at.draws = at.step * 0 + step, Draws(0, *[torch.arange(3)] * 2, at.step * 0 + step)
        state = attack.step(at, state)
    assert at.victim.asked.tolist() == [5, 5, 5]
    assert torch.equal(at.victim.points[0], start)


def test_in_linf_a_step_changes_one_square_to_the_edge_of_the_ball():
    attack = Square(steps=100)
    at = problem(step=60)
    before = attack.start(at)
    candidate = attack._square(at, before.x_adv)
    side = int(attack._side(at, "Linf")[0])
    changed = (candidate != before.x_adv).any(dim=1)
    assert changed.flatten(1).any(dim=1).all()
    for one in changed:
        rows, columns = torch.nonzero(one, as_tuple=True)
        assert rows.max() - rows.min() < side
        assert columns.max() - columns.min() < side
    assert torch.allclose((candidate - at.x).abs(), torch.tensor(0.1), atol=1e-6)


def test_no_query_is_spent_on_a_square_that_changes_nothing():
    attack = Square(steps=10_000)
    at = problem(count=400, step=9000, shape=(1, 8, 8))
    before = attack.start(at).x_adv
    assert (attack._square(at, before) != before).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("norm", NORMS)
def test_what_does_not_help_is_dropped_and_what_helps_is_kept(norm):
    attack, at = Square(steps=200), problem(norm, epsilon={"Linf": 0.1, "L2": 1.0, "L1": 4.0}[norm])
    state, values = attack.start(at), []
    for step in range(200):
        number = at.step * 0 + step
        at.step, at.draws = number, Draws(0, torch.arange(3), number * 0, number)
        state = attack.step(at, state)
        values.append(state.value)
        assert at.ball.contains(state.x_adv).all()
    values = torch.stack(values)
    assert (values.diff(dim=0) >= 0).all()
    top = state.x_adv[:, :, 0] - 0.5
    best = {"Linf": 0.1, "L2": 1.0 / 24**0.5, "L1": 4.0 / 24}[norm]
    part = {"Linf": 0.4, "L2": 0.2, "L1": 0.1}[norm]
    assert (top.flatten(1).mean(dim=1) > part * best).all()


@pytest.mark.parametrize(("norm", "power"), [("L2", 2), ("L1", 4)])
def test_windows_of_norm_1_hold_two_hills_of_opposite_sign_and_equal_norm(norm, power):
    side = torch.tensor([7, 5, 8, 1])
    corner = torch.tensor([1, 2, 0, 4])
    hills = window_shapes(
        corner, corner, side, torch.tensor([False, True, False, False]), 9, 9, norm
    )
    window = within(corner, corner, side, 9, 9)
    assert (hills[~window] == 0).all()
    half = 0.5 ** (1 if norm == "L1" else 0.5)
    assert measure(hills, norm).numpy() == pytest.approx(1.0)
    for one in hills[:3]:
        for sign in (1, -1):
            hill = (sign * one).clamp(min=0)[None]
            assert measure(hill, norm).item() == pytest.approx(half)
    assert (hills[0, 1:4, 1:8] > 0).all()
    assert (hills[0, 4:8, 1:8] < 0).all()
    assert (hills[1, 2:7, 2:4] > 0).all()  # turned: side by side
    # By hand: half a window of 5 is 2 rows of 5; squares around (1, 2) of side 1, 3, 5.
    ring = torch.tensor([[2, 1, 1, 1, 2], [2, 1, 0, 1, 2]])
    steps = [1, 1 / 2**power, 1 / 3**power]
    heights = torch.tensor([sum(steps), steps[1] + steps[2], steps[2]]).double()[ring]
    upper = hills[1, 2:7, 2:4].T
    assert torch.allclose(upper, half * heights / measure(heights[None], norm))


@pytest.mark.parametrize("norm", ["L2", "L1"])
def test_windows_keep_to_the_norm_and_use_all_of_it(norm):
    at = problem(norm, count=50, epsilon=0.8)
    start = tiled_start(at)
    side = torch.tensor([3, 5, 7, 1, 3]).repeat(10)
    moved = place_windows(at, start, side)
    for points in (start, moved):
        assert at.ball.contains(points).all()
        size = measure(points.double() - at.x.double(), norm)
        assert size.numpy() == pytest.approx(0.8, abs=1e-5)
    assert ((moved != start).flatten(1).any(dim=1)).all()


def test_it_breaks_a_network_about_as_white_box_attacks_do(digits):
    x, y = digits.images[:60], digits.labels[:60]
    black = evaluate(digits.module, x, y, Square(steps=600), epsilons=[0.12])
    white = evaluate(digits.module, x, y, {"name": "pgd", "loss": "margin"}, epsilons=[0.12])
    robust = [run.curve["robust_accuracy"].item() for run in (white, black)]
    assert robust[1] == pytest.approx(robust[0], abs=0.1)
    right = black.records["under_attack"]
    held = ~np.array([one[0] for one in black.records["broken"]])
    assert (black.records["queries"][right & held] == 600).all()


def test_it_reaches_target_classes(digits):
    x, y = digits.images[:30], digits.labels[:30]
    result = evaluate(digits.module, x, y, Square(steps=600), norm="L2", epsilons=[2.5],
                      targets=(y + 1) % 10)  # fmt: skip
    assert result.curve["attack_success_rate"].item() > 0.5


@pytest.mark.parametrize("given", [{"steps": 0}, {"first_share": 0.0}, {"first_share": 1.5}])
def test_parameters_that_make_no_attack_are_refused(given):
    (name,) = given
    with pytest.raises(BadParameter, match=name):
        Square(**given)
