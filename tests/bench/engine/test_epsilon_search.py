import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quintain.bench.engine.epsilon_search import CLEAN, BoundarySearch, Bracket, Exhaustive

GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def image(value):
    return torch.full((1, 1, 1), float(value))


def play(search, threshold, *, exact=True, right_restart=0, grid=GRID, cheap=lambda one: True):
    """Answer the search's tries as an example would that is broken from `threshold` on.

    exact: the attack finds the smallest perturbation rather than one that fills the ball.
    right_restart: the restart that it takes. cheap: whether a single step, which may fail where
    a full-budget attempt would not, succeeds where it can. Returns the attempts.
    """
    attempts = []
    while (one := search.next()) is not None:
        assert len(attempts) < 1000
        attempts.append(one)
        radius = grid[one.point]
        able = cheap(one) if one.single_step else one.restart >= right_restart
        hit = threshold <= radius and able
        distance = threshold if exact else radius
        found = image(distance) if hit else None
        search.report(image(radius), found, distance if hit else math.inf, spent=False)
    return attempts


orders = st.sampled_from(["bisect", "ascend", "descend", "sweep"])
grids = st.integers(1, 20).map(lambda n: tuple((i + 1) / n for i in range(n)))


@given(grids, st.floats(0.01, 1.2), orders, st.booleans(), st.integers(1, 3), st.data())
def test_a_bracket_finds_every_threshold(grid, threshold, order, exact, restarts, data):
    search = Bracket(grid, restarts, order=order)
    right = data.draw(st.integers(0, restarts - 1))
    attempts = play(search, threshold, exact=exact, right_restart=right, grid=grid)
    assert search.broken == {point for point, radius in enumerate(grid) if threshold <= radius}
    assert search.attacked == {one.point for one in attempts}
    if search.broken:
        assert list(search.images) == [min(search.broken)]
        found = search.images[min(search.broken)].item()
        assert found == pytest.approx(threshold if exact else grid[min(search.broken)])
    else:
        assert search.images == {}


@given(grids, st.floats(0.01, 1.2), st.booleans())
def test_bisection_needs_no_more_tries_than_there_are_bits_to_learn(grid, threshold, exact):
    attempts = play(Bracket(grid, 1, order="bisect"), threshold, exact=exact, grid=grid)
    assert len(attempts) <= math.ceil(math.log2(len(grid) + 1))


def test_a_success_covers_every_point_at_or_above_the_norm_found():
    search = Bracket(GRID, 1, order="descend")
    search.next()
    search.report(image(0.8), image(0.2), 0.2, spent=False)
    assert search.broken == set(range(1, 8))
    assert search.attacked == {7}
    assert search.next().point == 0


def test_a_find_outside_the_ball_that_was_tried_still_counts_above():
    search = Bracket(GRID, 1, order="bisect")
    assert search.next().point == 3
    search.report(image(0.4), image(0.55), 0.55, spent=False)
    assert search.broken == {5, 6, 7}
    assert search.next().point == 4  # 0.4 failed


def test_an_adversarial_example_farther_away_does_not_replace_a_nearer_one():
    search = Bracket(GRID, 1, 3, 0.4, order="descend")
    search.next()
    search.report(image(0.3), image(0.45), 0.45, spent=False)
    assert search.broken == {3, 4, 5, 6, 7}
    assert not search.images
    assert search.distance == 0.4


def test_ascending_tries_each_point_afresh_up_to_the_first_broken():
    attempts = play(Bracket(GRID, 1, order="ascend"), 0.35, exact=False)
    assert [one.point for one in attempts] == [0, 1, 2, 3]
    assert all(one.start is None for one in attempts)


def test_the_next_attempt_starts_where_the_last_one_ended():
    attempts = play(Bracket(GRID, 1, order="bisect"), 0.65)
    assert [one.point for one in attempts] == [3, 5, 6]
    assert [None if one.start is None else round(one.start.item(), 2) for one in attempts] == [
        None, 0.4, 0.6,
    ]  # fmt: skip


def test_restarts_are_used_up_before_a_point_is_given_up():
    attempts = play(Bracket((0.5,), 3, order="bisect"), 0.9, grid=(0.5,))
    assert [(one.point, one.restart) for one in attempts] == [(0, 0), (0, 1), (0, 2)]
    assert [one.start for one in attempts] == [None] * 3
    broken = play(Bracket((0.5,), 3, order="bisect"), 0.4, right_restart=1, grid=(0.5,))
    assert len(broken) == 2


def test_nothing_is_tried_once_the_budget_is_spent():
    search = Bracket(GRID, 2, order="descend")
    search.next()
    search.report(image(0.8), image(0.7), 0.7, spent=True)
    assert search.next() is None
    assert search.broken == {6, 7}


def test_a_second_attack_starts_below_what_the_first_one_found():
    search = Bracket(GRID, 1, 3, 0.4, order="descend")
    assert [one.point for one in play(search, 0.9)] == [2]
    assert search.broken == {3, 4, 5, 6, 7}
    assert not search.images


@given(grids, st.floats(0.01, 1.2), st.booleans(), st.integers(1, 3), st.data())
def test_narrowing_finds_every_threshold_whatever_the_cheap_tries_do(
    grid, threshold, exact, restarts, data
):
    search = BoundarySearch(grid, restarts)
    right = data.draw(st.integers(0, restarts - 1))
    attempts = play(
        search,
        threshold,
        exact=exact,
        right_restart=right,
        grid=grid,
        cheap=lambda one: data.draw(st.booleans()),
    )
    assert search.broken == {point for point, radius in enumerate(grid) if threshold <= radius}
    assert search.attacked == {one.point for one in attempts}
    lowest = min(search.broken, default=len(grid))
    if lowest:  # it resists just below, and it was not for want of trying
        whole = [one.restart for one in attempts if one.point == lowest - 1 and not one.single_step]
        assert whole[-restarts:] == list(range(restarts))


@pytest.mark.parametrize("exact", [True, False])
def test_narrowing_comes_near_cheaply_and_tries_the_last_point_in_earnest(exact):
    attempts = play(BoundarySearch(GRID, 1), 0.35, exact=exact)
    assert (attempts[0].point, attempts[0].start) == (7, CLEAN)
    steps = [one for one in attempts[1:] if one.single_step]
    assert all(isinstance(one.start, torch.Tensor) for one in steps)
    (whole,) = [one for one in attempts if not one.single_step]
    assert (whole.point, whole.start) == (2, None)  # as an exhaustive search would


def test_narrowing_does_not_give_up_what_resists_before_every_restart():
    attempts = play(BoundarySearch(GRID, 3), 9.0)
    assert [(one.point, one.restart) for one in attempts if not one.single_step] == [
        (7, 0), (7, 1), (7, 2),
    ]  # fmt: skip


@given(grids, st.floats(0.01, 1.2))
def test_narrowing_takes_few_full_budget_attempts(grid, threshold):
    attempts = play(BoundarySearch(grid, 1), threshold, exact=False, grid=grid)
    assert sum(not one.single_step for one in attempts) <= 2 * math.log2(len(grid) + 1) + 3


def test_narrowing_after_another_attack_starts_just_below_what_that_found():
    search = BoundarySearch(GRID, 1, 3, 0.4)
    attempts = play(search, 0.9)
    assert [(one.point, one.single_step) for one in attempts] == [(2, False)]
    assert search.broken == {3, 4, 5, 6, 7}


def test_narrowing_ends_with_the_budget():
    search = BoundarySearch(GRID, 1)
    search.next()
    search.report(image(0.8), image(0.7), 0.7, spent=True)
    assert search.next() is None
    assert search.broken == {6, 7}


def test_exhaustive_tries_everything_and_infers_nothing():
    search = Exhaustive(GRID, 1)
    attempts = play(search, 0.35)
    assert [one.point for one in attempts] == list(range(8))
    assert all(one.start is None for one in attempts)
    assert search.broken == set(search.images) == {3, 4, 5, 6, 7}
    assert search.attacked == set(range(8))


def test_exhaustive_counts_a_point_only_when_its_own_ball_was_left_alone():
    search = Exhaustive((0.1, 0.2), 1)
    search.next()
    search.report(image(0.1), image(0.15), 0.15, spent=False)
    search.next()
    search.report(image(0.2), None, math.inf, spent=False)
    assert search.broken == set()


def test_exhaustive_restarts_until_broken_or_out_of_queries():
    attempts = play(Exhaustive((0.1, 0.2), 3), 0.15, right_restart=1, grid=(0.1, 0.2))
    assert [(one.point, one.restart) for one in attempts] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
    ]
    search = Exhaustive((0.1, 0.2), 3)
    search.next()
    search.report(image(0.1), None, math.inf, spent=True)
    assert search.next().point == 1


def test_exhaustive_skips_what_an_earlier_attack_broke():
    search = Exhaustive(GRID, 1, frozenset({1, 7}))
    assert [one.point for one in play(search, 9.0)] == [0, 2, 3, 4, 5, 6]
    assert search.broken == {1, 7}


def test_exhaustive_with_a_shared_budget_begins_at_the_largest_and_ends_with_it():
    search = Exhaustive(GRID, 2, frozenset({7}), shared=True)
    one = search.next()
    assert (one.point, one.restart) == (6, 0)
    search.report(image(0.7), image(0.65), 0.65, spent=False)
    assert search.next().point == 5
    search.report(image(0.6), None, math.inf, spent=False)
    assert (search.next().point, search.next().restart) == (5, 1)
    search.report(image(0.6), None, math.inf, spent=True)
    assert search.next() is None
    assert not search.decided
    assert search.broken == {6, 7}
    whole = Exhaustive(GRID, 1, shared=True)
    assert [one.point for one in play(whole, 0.35)] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert whole.broken == {3, 4, 5, 6, 7}
    assert whole.decided


def test_a_sweep_tries_every_point_downwards_whatever_fails():
    search = Bracket(GRID, 1, order="sweep")
    tried = []
    while (one := search.next()) is not None:
        tried.append(one.point)
        hit = one.point in (2, 5)  # an attack that breaks two epsilons and none between
        radius = GRID[one.point]
        found = image(radius) if hit else None
        search.report(image(radius), found, radius if hit else math.inf, spent=False)
    assert tried == [7, 6, 5, 4, 3, 2, 1, 0]
    assert search.broken == {2, 3, 4, 5, 6, 7}
    assert search.decided


@pytest.mark.parametrize("order", ["descend", "sweep"])
def test_a_budget_that_ends_early_leaves_points_undecided(order):
    search = Bracket(GRID, 1, order=order)
    search.next()
    search.report(image(0.8), None, math.inf, spent=True)
    assert search.next() is None
    assert not search.decided
