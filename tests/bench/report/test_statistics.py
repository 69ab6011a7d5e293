import math

import pytest

from quintain.bench.report.statistics import curve_area, interval


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 7), (812, 1000)])
def test_interval_solves_wilsons_equation(successes, trials):
    """Its ends are the proportions that lie 1.96 of their own standard errors from the share."""
    share = successes / trials
    ends = interval(successes, trials)
    assert 0.0 <= ends[0] <= share <= ends[1] <= 1.0
    for end in ends:
        gap = 1.959963984540054 * math.sqrt(end * (1 - end) / trials)
        assert abs(share - end) == pytest.approx(gap, abs=1e-9)


def test_interval_is_the_one_in_newcombes_table():
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81 of 263, 15 of 148."""
    assert interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_interval_widens_with_confidence():
    assert interval(5, 10, 0.99)[0] < interval(5, 10, 0.9)[0]


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_interval_refuses_what_is_no_proportion(successes, trials):
    with pytest.raises(ValueError):
        interval(successes, trials)


def test_curve_area_is_the_mean_height():
    assert curve_area([1.0, 2.0], [1.0, 1.0], 1.0) == pytest.approx(1.0)
    assert curve_area([1.0, 2.0], [0.5, 0.0], 1.0) == pytest.approx(0.5)
    assert curve_area([0.1, 0.4], [0.4, 0.0], 0.8) == pytest.approx((0.06 + 0.06) / 0.4)


def test_curve_area_does_not_mind_the_order():
    assert curve_area([2.0, 1.0], [0.0, 0.5], 1.0) == curve_area([1.0, 2.0], [0.5, 0.0], 1.0)
