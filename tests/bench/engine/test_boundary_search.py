import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quintain.bench.engine.epsilon_search import CLEAN, BoundarySearch

GRID = tuple((i + 1) / 10 for i in range(8))


def image(value):
    return torch.full((1, 1, 1), float(value))


def play(
    search,
    threshold,
    *,
    boundary_search=True,
    grid=GRID,
    overshoot=0.0,
    right_restart=0,
    margin=1.0,
):
    """Answer as an example would whose margin falls in proportion, and is gone at `threshold`.

    boundary_search: whether single steps succeed too. overshoot: how far beyond the threshold, as a
    part of the way to the rim, the perturbation that is found lies. margin: at the clean image.
    Returns the attempts.
    """
    attempts = []
    while (one := search.next()) is not None:
        assert len(attempts) < 1000
        attempts.append(one)
        radius = grid[one.point]
        clean = isinstance(one.start, str)
        able = boundary_search and not clean if one.single_step else one.restart >= right_restart
        hit = able and threshold <= radius
        distance = threshold + overshoot * (radius - threshold) if hit else math.inf
        found = image(distance) if hit else None
        gone = 0.0 if clean else radius / threshold
        search.report(image(radius), found, distance, spent=False, margin=margin * (1 - gone))
    return attempts


grids = st.integers(1, 33).map(lambda n: tuple((i + 1) / n for i in range(n)))
margins = st.sampled_from([1.0, 1e-6, 1e6, -1.0, 0.0, math.nan])


@given(
    grids,
    st.floats(0.01, 1.2),
    st.booleans(),
    st.floats(0, 1),
    st.integers(1, 3),
    margins,
    st.data(),
)
def test_every_threshold_is_found(
    grid, threshold, boundary_search, overshoot, restarts, margin, data
):
    search = BoundarySearch(grid, restarts)
    named = {"overshoot": overshoot, "right_restart": data.draw(st.integers(0, restarts - 1))}
    play(search, threshold, boundary_search=boundary_search, grid=grid, margin=margin, **named)
    assert search.broken == {point for point, radius in enumerate(grid) if threshold <= radius}
    assert set(search.images) == ({min(search.broken)} if search.broken else set())


@given(grids, st.floats(0.01, 1.2), st.booleans(), st.floats(0, 1), margins)
def test_the_point_below_is_given_up_only_after_a_full_budget_attempt(
    grid, threshold, boundary_search, overshoot, margin
):
    search = BoundarySearch(grid, 1)
    attempts = play(
        search,
        threshold,
        boundary_search=boundary_search,
        grid=grid,
        overshoot=overshoot,
        margin=margin,
    )
    if search.high > 0:
        whole = [one for one in attempts if one.point == search.high - 1 and not one.single_step]
        assert whole
        assert whole[-1].start is None


@given(st.floats(0.01, 1.2), st.booleans(), st.floats(0, 1), margins)
def test_full_budget_attempts_are_few_on_a_dense_grid(
    threshold, boundary_search, overshoot, margin
):
    grid = tuple((i + 1) / 64 for i in range(64))
    attempts = play(
        BoundarySearch(grid, 1),
        threshold,
        boundary_search=boundary_search,
        grid=grid,
        overshoot=overshoot,
        margin=margin,
    )
    assert sum(not one.single_step for one in attempts) <= 15


@given(st.floats(0.01, 1.2), st.floats(0, 1))
def test_where_the_margin_falls_in_proportion_the_boundary_search_leads_to_the_boundary(
    threshold, overshoot
):
    grid = tuple((i + 1) / 64 for i in range(64))
    attempts = play(BoundarySearch(grid, 1), threshold, grid=grid, overshoot=overshoot)
    assert sum(not one.single_step for one in attempts) <= 1
    assert len(attempts) <= 9


def test_a_boundary_search_aims_at_the_boundary_and_fails_just_below_it():
    attempts = play(BoundarySearch(GRID, 1), 0.45)
    assert [(one.point, one.single_step) for one in attempts] == [
        (7, True), (3, True), (4, True), *[(3, True)] * 4, (3, False),
    ]  # fmt: skip
    assert [one.ease for one in attempts] == [1, 1, 1, 1, 0.5, 0.25, 0.125, 1]
    assert attempts[0].start == CLEAN
    assert attempts[1].start.item() == pytest.approx(0.8)  # where the step before it led


def test_a_boundary_search_that_learns_nothing_asks_just_below_and_soon_gives_up():
    attempts = play(BoundarySearch(GRID, 1), 0.45, boundary_search=False, margin=math.nan)
    assert [(one.point, one.single_step) for one in attempts] == [
        (7, True), (7, True), (7, False), (3, True), (3, False),
    ]  # fmt: skip


def test_what_nothing_can_break_costs_a_short_boundary_search_and_one_full_budget_attempt():
    attempts = play(BoundarySearch(GRID, 1), 8.0)
    assert [(one.point, one.single_step) for one in attempts] == [
        (7, True), (3, True), (7, True), (7, False),
    ]  # fmt: skip


def test_a_boundary_search_has_no_more_steps_than_it_may_take():
    attempts = play(BoundarySearch(GRID, 1, probe_steps=2), 0.45)
    assert [one.single_step for one in attempts[:3]] == [True, True, False]


def test_a_single_epsilon_is_one_full_budget_attempt():
    attempts = play(BoundarySearch((0.5,), 2), 0.9, grid=(0.5,))
    assert [(one.restart, one.single_step, one.start) for one in attempts] == [
        (0, False, None),
        (1, False, None),
    ]


def test_a_later_attack_begins_with_a_full_budget_attempt_just_below():
    search = BoundarySearch(GRID, 1, 3, 0.4)
    attempts = play(search, 0.9)
    assert [(one.point, one.single_step) for one in attempts] == [(2, False)]
    assert search.broken == {3, 4, 5, 6, 7}


def test_nothing_is_tried_once_the_budget_is_spent():
    search = BoundarySearch(GRID, 2)
    search.next()
    search.report(image(0.8), image(0.7), 0.7, spent=True)
    assert search.next() is None
    assert search.broken == {6, 7}
