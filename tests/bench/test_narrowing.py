import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quintain.bench.search import CLEAN, Narrowing

GRID = tuple((i + 1) / 10 for i in range(8))


def image(value):
    return torch.full((1, 1, 1), float(value))


def play(search, threshold, *, probes_work=True, grid=GRID, overshoot=0.0, right_restart=0):
    """Answer as an example would that whole tries break from `threshold` on.

    probes_work: whether shortened tries succeed too. overshoot: how far beyond the threshold, as a
    part of the way to the rim, the perturbation that is found lies. Returns the tries.
    """
    tries = []
    while (one := search.next()) is not None:
        assert len(tries) < 1000
        tries.append(one)
        radius = grid[one.point]
        able = probes_work if one.share < 1 else one.restart >= right_restart
        hit = able and threshold <= radius
        distance = threshold + overshoot * (radius - threshold)
        found = image(distance) if hit else None
        search.report(image(radius), found, distance if hit else math.inf, spent=False)
    return tries


grids = st.integers(1, 33).map(lambda n: tuple((i + 1) / n for i in range(n)))


@given(grids, st.floats(0.01, 1.2), st.booleans(), st.floats(0, 1), st.integers(1, 3), st.data())
def test_every_threshold_is_found(grid, threshold, probes_work, overshoot, restarts, data):
    search = Narrowing(grid, restarts)
    named = {"overshoot": overshoot, "right_restart": data.draw(st.integers(0, restarts - 1))}
    play(search, threshold, probes_work=probes_work, grid=grid, **named)
    assert search.broken == {point for point, radius in enumerate(grid) if threshold <= radius}
    assert set(search.images) == ({min(search.broken)} if search.broken else set())


@given(grids, st.floats(0.01, 1.2), st.booleans(), st.floats(0, 1))
def test_the_point_below_is_given_up_only_after_a_whole_try(grid, threshold, works, overshoot):
    search = Narrowing(grid, 1)
    tries = play(search, threshold, probes_work=works, grid=grid, overshoot=overshoot)
    if search.high > 0:
        whole = [one for one in tries if one.point == search.high - 1 and one.share == 1.0]
        assert whole
        assert whole[-1].start is None


@given(st.floats(0.01, 1.2), st.booleans(), st.floats(0, 1))
def test_whole_tries_are_few_on_a_dense_grid(threshold, probes_work, overshoot):
    grid = tuple((i + 1) / 64 for i in range(64))
    tries = play(
        Narrowing(grid, 1), threshold, probes_work=probes_work, grid=grid, overshoot=overshoot
    )
    assert sum(one.share == 1.0 for one in tries) <= (2 if probes_work else 14)


def test_a_tight_approach_leaves_one_probe_and_one_whole_try():
    tries = play(Narrowing(GRID, 1), 0.45)
    assert [(one.point, one.share < 1) for one in tries] == [(7, True), (3, True), (3, False)]
    assert isinstance(tries[0].start, str)
    assert tries[0].start == CLEAN
    assert tries[1].start.item() == pytest.approx(0.45)


def test_what_nothing_breaks_costs_one_approach_and_one_whole_try():
    tries = play(Narrowing(GRID, 1), 2.0)
    assert [(one.point, one.share < 1) for one in tries] == [(7, True), (7, False)]


def test_a_single_epsilon_is_one_whole_try():
    tries = play(Narrowing((0.5,), 2), 0.9, grid=(0.5,))
    assert [(one.restart, one.share, one.start) for one in tries] == [
        (0, 1.0, None),
        (1, 1.0, None),
    ]


def test_a_later_attack_begins_with_a_whole_try_just_below():
    search = Narrowing(GRID, 1, {3: image(0.4)}, 0.4)
    tries = play(search, 0.9)
    assert [(one.point, one.share) for one in tries] == [(2, 1.0)]
    assert search.broken == {3, 4, 5, 6, 7}


def test_nothing_is_tried_once_the_budget_is_spent():
    search = Narrowing(GRID, 2)
    search.next()
    search.report(image(0.8), image(0.7), 0.7, spent=True)
    assert search.next() is None
    assert search.broken == {6, 7}
