import math
import time

import numpy as np
import pytest
import scipy.stats

from quintain.bench.report.statistics import (
    Estimate,
    bootstrap,
    bootstrap_mean,
    compare_pairs,
    curve_area,
    interval,
    median_interval,
    paired_difference,
    pairwise_p_values,
    rank_intervals,
    smallest_detectable_difference,
)


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


def test_bootstrap_covers_the_true_mean_and_median():
    """Of a skewed population, in samples of a study's size: no less than 92 of 100."""
    source = np.random.default_rng(5)
    hits = {"mean": 0, "median": 0}
    for seed in range(500):
        sample = source.exponential(size=100)
        for statistic, true in (("mean", 1.0), ("median", math.log(2))):
            found = bootstrap(sample, statistic, resamples=400, seed=seed)
            hits[statistic] += found.low <= true <= found.high
    assert min(hits.values()) >= 0.92 * 500


def test_bootstrap_leaves_out_what_is_not_known():
    known = [0.2, 0.4, 0.9, 0.5]
    assert bootstrap([math.nan, *known]) == bootstrap(known)
    assert bootstrap([math.nan]).n == 0
    assert math.isnan(bootstrap([0.5]).low)  # one example says nothing of the spread


def test_bootstrap_of_equal_values_has_no_width():
    assert bootstrap([0.25] * 7) == Estimate(0.25, 0.25, 0.25, 7)


def test_pairs_tell_more_than_two_samples():
    """The examples' own spread cancels: the interval is that of the differences alone."""
    source = np.random.default_rng(0)
    first = source.normal(0.0, 5.0, size=80)
    second = first - source.normal(0.3, 0.1, size=80)
    paired = paired_difference(first, second)
    assert 0.25 < paired.low < paired.high < 0.35
    assert paired.high - paired.low < 0.05 * (bootstrap(first).high - bootstrap(first).low)


def test_paired_proportions_cover_the_true_difference():
    """Correlated, nearly equal, and nearly always right: no less than 93 of 100."""
    source = np.random.default_rng(2)
    for size, share, same in ((50, 0.5, 0.0), (100, 0.9, 0.8), (50, 0.3, 0.5), (60, 0.02, 0.0)):
        true = share - (same * share + (1 - same) * share * 0.8)
        hits = 0
        for _ in range(500):
            first = source.random(size) < share
            second = np.where(source.random(size) < same, first, source.random(size) < share * 0.8)
            found = compare_pairs(first, second).difference
            hits += found.low - 1e-9 <= true <= found.high + 1e-9
        assert hits >= 0.925 * 500, (size, share, same)


def test_mcnemar_is_the_sign_test_of_the_disagreeing():
    first = [True] * 9 + [False] * 1 + [True] * 30
    second = [False] * 9 + [True] * 1 + [True] * 30
    found = compare_pairs(first, second)
    assert (found.only_first, found.only_second) == (9, 1)
    assert found.p_value == pytest.approx(2 * 11 / 2**10)
    same = compare_pairs([True, False], [True, False])
    assert same.p_value == 1.0
    assert same.difference.low < same.difference.value == 0.0 < same.difference.high


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_pairs_of_other_shapes_are_refused(first, second):
    with pytest.raises(ValueError, match="pairs must be"):
        paired_difference(first, second)


def withstood(random, truth, n, shared):
    """(R, N) outcomes with these means, of which a share of the examples has one cause for all."""
    own, common = random.random((len(truth), n)), random.random(n)
    alike = random.random((len(truth), n)) < shared
    return np.where(alike, common, own) < np.array(truth)[:, None]


def coverage(truth, n, shared, simulations, twins=()):
    """How often all intervals hold every rank that their rows may have; how often one does."""
    random = np.random.default_rng(7)
    best = np.array([1 + sum(other > one for other in truth) for one in truth])
    worst = np.array([len(truth) - sum(other < one for other in truth) for one in truth])
    every = single = 0.0
    for _ in range(simulations):
        outcomes = withstood(random, truth, n, shared)
        for one, other in twins:
            outcomes[other] = outcomes[one]
        found = rank_intervals(outcomes)
        covers = (found.low <= best) & (found.high >= worst)
        every += covers.all()
        single += covers.mean()
    return every / simulations, single / simulations


@pytest.mark.parametrize(
    ("truth", "n", "shared", "twins"),
    [
        ((0.5, 0.5, 0.5, 0.5, 0.5), 200, 0.5, ()),  # all tied
        ((0.6, 0.55, 0.5, 0.5, 0.4), 200, 0.7, ()),
        ((0.5, 0.5, 0.5, 0.5), 100, 0.9, ((0, 1),)),  # a pair without variance
        ((0.0, 0.0, 1.0, 0.5, 0.5), 50, 0.5, ()),  # rows and pairs without variance
        ((0.05, 0.05, 0.05), 40, 0.3, ()),  # rare events, few examples
    ],
)
def test_rank_intervals_hold_what_they_promise(truth, n, shared, twins):
    """At least 93% of 2,000 simulations, where 95% is promised."""
    every, single = coverage(truth, n, shared, 2000, twins)
    assert every >= 0.93
    assert single >= every


def test_rank_intervals_can_tell_rows_apart():
    """Negative control: they are no wider than they must be."""
    random = np.random.default_rng(3)
    found = rank_intervals(withstood(random, (0.8, 0.5, 0.2), 400, 0.5))
    assert found.low.tolist() == found.high.tolist() == found.group.tolist() == [1, 2, 3]
    same = rank_intervals([[1, 0, 1, 1]] * 3)
    assert (same.low.tolist(), same.high.tolist()) == ([1, 1, 1], [3, 3, 3])
    assert same.group.tolist() == [1, 1, 1]
    apart = rank_intervals([[0] * 50, [1] * 50])
    assert (apart.low.tolist(), apart.group.tolist()) == ([2, 1], [2, 1])


def test_rank_intervals_of_many_rows_take_no_time():
    outcomes = np.random.default_rng(0).random((30, 10_000)) < 0.5
    began = time.process_time()
    rank_intervals(outcomes)
    assert time.process_time() - began < 3.0


def test_pairs_are_tested_exactly_and_adjusted():
    outcomes = np.zeros((3, 20), dtype=bool)
    outcomes[0, :12] = outcomes[1, :4] = outcomes[2, 2:4] = True
    p = pairwise_p_values(outcomes)
    raw = [2 * 0.5**8, 2 * 0.5**10, 2 * 0.5**2]  # 8, 10 and 2 disagreeing examples, all one way
    assert p[0, 1] == pytest.approx(2 * raw[0])
    assert p[0, 2] == pytest.approx(3 * raw[1])
    assert p[1, 2] == pytest.approx(raw[2])
    assert np.array_equal(p, p.T)
    assert np.diagonal(p).tolist() == [1.0, 1.0, 1.0]


def test_the_detectable_difference_is_detected_four_times_in_five():
    n, disagreeing = 500, 0.3
    difference = smallest_detectable_difference(n, disagreeing)
    random = np.random.default_rng(5)
    first = random.binomial(n, disagreeing, 4000)
    ahead = random.binomial(first, (1 + difference / disagreeing) / 2)
    fewer = np.minimum(ahead, first - ahead)
    found = 2 * scipy.stats.binom.cdf(fewer, first, 0.5) < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.04)  # the exact test is a little weaker
    assert math.isnan(smallest_detectable_difference(5, 0.1))


def test_a_median_may_lie_beyond_what_was_measured():
    assert median_interval([math.inf] * 9).value == math.inf
    found = median_interval([0.1] * 45 + [0.2] * 25 + [math.inf] * 30)
    assert (found.value, found.low) == (0.2, 0.1)
    assert found.high == 0.2


def test_the_medians_interval_covers_it():
    random = np.random.default_rng(2)
    truth = math.log(2)
    hits = 0
    for _ in range(2000):
        values = random.exponential(size=80)
        found = median_interval(np.where(values > 2.0, math.inf, values))
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 2000 <= 0.98


@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_the_mean_of_few_numbers_has_the_interval_of_any(share):
    """As scipy's resampling gives, but for the chance of both."""
    values = np.random.default_rng(4).binomial(5, share, 300) / 5
    quick, whole = bootstrap_mean(values, resamples=20_000), bootstrap(values, resamples=20_000)
    width = whole.high - whole.low
    assert quick.value == whole.value
    assert (quick.low, quick.high) == pytest.approx((whole.low, whole.high), abs=0.03 * width)


def test_the_mean_of_few_numbers_takes_no_time():
    values = np.random.default_rng(4).integers(0, 8, 100_000) / 8
    began = time.process_time()
    found = bootstrap_mean(values)
    assert time.process_time() - began < 1.0
    assert found.low < found.value < found.high
    assert bootstrap_mean([0.5] * 9) == Estimate(0.5, 0.5, 0.5, 9)
