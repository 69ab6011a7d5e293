import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quintain.bench.engine.epsilon_search import CLEAN, Narrowing

GRID = tuple((i + 1) / 10 for i in range(8))


def image(value):
    return torch.full((1, 1, 1), float(value))


def play(search, threshold, *, walks=True, grid=GRID, overshoot=0.0, right_restart=0, lead=1.0):
    """Answer as an example would whose lead falls in proportion, and is gone at `threshold`.

    walks: whether steps of a walk succeed too. overshoot: how far beyond the threshold, as a part
    of the way to the rim, the perturbation that is found lies. lead: at the clean image. Returns
    the tries.
    """
    tries = []
    while (one := search.next()) is not None:
        assert len(tries) < 1000
        tries.append(one)
        radius = grid[one.point]
        clean = isinstance(one.start, str)
        able = walks and not clean if one.brief else one.restart >= right_restart
        hit = able and threshold <= radius
        distance = threshold + overshoot * (radius - threshold) if hit else math.inf
        found = image(distance) if hit else None
        gone = 0.0 if clean else radius / threshold
        search.report(image(radius), found, distance, spent=False, lead=lead * (1 - gone))
    return tries


grids = st.integers(1, 33).map(lambda n: tuple((i + 1) / n for i in range(n)))
leads = st.sampled_from([1.0, 1e-6, 1e6, -1.0, 0.0, math.nan])


@given(
    grids, st.floats(0.01, 1.2), st.booleans(), st.floats(0, 1), st.integers(1, 3), leads, st.data()
)
def test_every_threshold_is_found(grid, threshold, walks, overshoot, restarts, lead, data):
    search = Narrowing(grid, restarts)
    named = {"overshoot": overshoot, "right_restart": data.draw(st.integers(0, restarts - 1))}
    play(search, threshold, walks=walks, grid=grid, lead=lead, **named)
    assert search.broken == {point for point, radius in enumerate(grid) if threshold <= radius}
    assert set(search.images) == ({min(search.broken)} if search.broken else set())


@given(grids, st.floats(0.01, 1.2), st.booleans(), st.floats(0, 1), leads)
def test_the_point_below_is_given_up_only_after_a_whole_try(
    grid, threshold, walks, overshoot, lead
):
    search = Narrowing(grid, 1)
    tries = play(search, threshold, walks=walks, grid=grid, overshoot=overshoot, lead=lead)
    if search.high > 0:
        whole = [one for one in tries if one.point == search.high - 1 and not one.brief]
        assert whole
        assert whole[-1].start is None


@given(st.floats(0.01, 1.2), st.booleans(), st.floats(0, 1), leads)
def test_whole_tries_are_few_on_a_dense_grid(threshold, walks, overshoot, lead):
    grid = tuple((i + 1) / 64 for i in range(64))
    tries = play(
        Narrowing(grid, 1), threshold, walks=walks, grid=grid, overshoot=overshoot, lead=lead
    )
    assert sum(not one.brief for one in tries) <= 15


@given(st.floats(0.01, 1.2), st.floats(0, 1))
def test_where_the_lead_falls_in_proportion_the_walk_leads_to_the_boundary(threshold, overshoot):
    grid = tuple((i + 1) / 64 for i in range(64))
    tries = play(Narrowing(grid, 1), threshold, grid=grid, overshoot=overshoot)
    assert sum(not one.brief for one in tries) <= 1
    assert len(tries) <= 9


def test_a_walk_aims_at_the_boundary_and_fails_just_below_it():
    tries = play(Narrowing(GRID, 1), 0.45)
    assert [(one.point, one.brief) for one in tries] == [
        (7, True), (3, True), (4, True), *[(3, True)] * 4, (3, False),
    ]  # fmt: skip
    assert [one.ease for one in tries] == [1, 1, 1, 1, 0.5, 0.25, 0.125, 1]
    assert tries[0].start == CLEAN
    assert tries[1].start.item() == pytest.approx(0.8)  # where the step before it led


def test_a_walk_that_learns_nothing_asks_just_below_and_soon_gives_up():
    tries = play(Narrowing(GRID, 1), 0.45, walks=False, lead=math.nan)
    assert [(one.point, one.brief) for one in tries] == [
        (7, True), (7, True), (7, False), (3, True), (3, False),
    ]  # fmt: skip


def test_what_nothing_can_break_costs_a_short_walk_and_one_whole_try():
    tries = play(Narrowing(GRID, 1), 8.0)
    assert [(one.point, one.brief) for one in tries] == [
        (7, True), (3, True), (7, True), (7, False),
    ]  # fmt: skip


def test_a_walk_has_no_more_steps_than_it_may_take():
    tries = play(Narrowing(GRID, 1, walk=2), 0.45)
    assert [one.brief for one in tries[:3]] == [True, True, False]


def test_a_single_epsilon_is_one_whole_try():
    tries = play(Narrowing((0.5,), 2), 0.9, grid=(0.5,))
    assert [(one.restart, one.brief, one.start) for one in tries] == [
        (0, False, None),
        (1, False, None),
    ]


def test_a_later_attack_begins_with_a_whole_try_just_below():
    search = Narrowing(GRID, 1, 3, 0.4)
    tries = play(search, 0.9)
    assert [(one.point, one.brief) for one in tries] == [(2, False)]
    assert search.broken == {3, 4, 5, 6, 7}


def test_nothing_is_tried_once_the_budget_is_spent():
    search = Narrowing(GRID, 2)
    search.next()
    search.report(image(0.8), image(0.7), 0.7, spent=True)
    assert search.next() is None
    assert search.broken == {6, 7}
