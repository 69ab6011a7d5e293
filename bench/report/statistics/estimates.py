"""Estimates with intervals, paired comparisons, the area under a curve.

Everything here is of examples that were drawn independently: the uncertainty is that of the sample
of images, not of training a network again. `mean_interval` alone is of a few trainings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Literal["mean", "median"]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval. n: how many examples it is of. nan where there are none."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class PairedComparison:
    """Two outcomes, yes or no, of the same examples.

    difference: share of yes in the first less that in the second, with its interval. only_first,
    only_second: how many examples are yes in one alone. p_value: of the exact McNemar test that
    there is no difference, two-sided.
    """

    difference: Estimate
    only_first: int
    only_second: int
    p_value: float


@lru_cache(maxsize=65536)
def interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), as fractions in [0, 1].

    Raises: ValueError when there are no trials, or successes are not from 0 to the trials.

    >>> from quintain.bench.report.statistics import interval
    >>> low, high = interval(50, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    if trials < 1 or not 0 <= successes <= trials:  # some releases of SciPy return NaN
        raise ValueError(f"{successes} of {trials} is no proportion")
    from scipy.stats import binomtest  # not when tables are only read: it takes long to import

    found = binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="wilson")
    return float(found.low), float(found.high)


def bootstrap(
    values: ArrayLike,
    statistic: Statistic = "mean",
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The mean or median of some examples' numbers, with a bootstrap interval (Efron 1987, BCa).

    values: (n,), one for each example; nan where an example has none, which is left out. Where all
    are equal the interval has no width: the sample shows no spread.

    Raises: ValueError for values that are not (n,).

    >>> from quintain.bench.report.statistics import bootstrap
    >>> print(bootstrap([0.1, 0.4, 0.4, 0.5, 0.6, 0.8, 0.9, 0.9]))
    0.57 [0.39, 0.74]
    """
    sample = _finite(values)
    if not len(sample):
        return Estimate(np.nan, np.nan, np.nan, 0)
    of: Any = np.mean if statistic == "mean" else np.median
    value = float(of(sample))
    if len(sample) == 1:
        return Estimate(value, np.nan, np.nan, 1)
    if sample.min() == sample.max():
        return Estimate(value, value, value, len(sample))
    from scipy.stats import bootstrap as resample

    # BCa corrects by the jackknife, which is degenerate for a median
    found = resample(
        (sample,),
        of,
        confidence_level=confidence,
        n_resamples=resamples,
        method="BCa" if statistic == "mean" else "percentile",
        vectorized=True,
        axis=0,
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high), len(sample))


def bootstrap_mean(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """The mean of numbers of which many are equal, with the BCa interval of `bootstrap`.

    Resamples are drawn as counts of the different numbers, and the acceleration of a mean is known
    without a jackknife, so that time and memory depend on the different numbers alone: of 10,000
    examples with six of them it takes milliseconds, where resampling takes 5 s and 2 GB.

    values: (n,), finite.

    >>> from quintain.bench.report.statistics import bootstrap_mean
    >>> print(bootstrap_mean([0.0] * 30 + [1.0] * 70))
    0.70 [0.60, 0.79]
    """
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    if not n:
        return Estimate(np.nan, np.nan, np.nan, 0)
    different, counts = np.unique(sample, return_counts=True)
    value = float(sample.mean())
    if len(different) == 1:
        return Estimate(value, value, value, n)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples) @ different / n
    below = float(np.mean(drawn < value) + np.mean(drawn <= value)) / 2
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples))
    apart = different - value
    acceleration = float(counts @ apart**3) / (6 * float(counts @ apart**2) ** 1.5)

    def end(share: float) -> float:
        z = bias + normal.inv_cdf(share)
        return float(np.quantile(drawn, normal.cdf(bias + z / (1 - acceleration * z))))

    return Estimate(value, end((1 - confidence) / 2), end((1 + confidence) / 2), n)


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """The mean of a few numbers, such as one of each of some trainings, with Student's interval.

    values: (n,); nan is left out. The interval is nan for fewer than two.

    Raises: ValueError for values that are not (n,).

    >>> from quintain.bench.report.statistics import mean_interval
    >>> print(mean_interval([0.90, 0.92, 0.94]))
    0.92 [0.87, 0.97]
    """
    sample = _finite(values)
    n = len(sample)
    value = float(sample.mean()) if n else np.nan
    if n <= 1:
        return Estimate(value, np.nan, np.nan, n)
    from scipy.stats import t

    reach = float(t.ppf((1 + confidence) / 2, n - 1) * sample.std(ddof=1) / n**0.5)
    return Estimate(value, value - reach, value + reach, n)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    statistic: Statistic = "mean",
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """The mean or median of first - second over the same examples, with a bootstrap interval.

    first, second: (n,). Examples where either is nan are left out.

    Raises: ValueError when they are not of one length.

    >>> from quintain.bench.report.statistics import paired_difference
    >>> print(paired_difference([0.9, 0.8, 0.7, 0.9, 0.6], [0.5, 0.5, 0.6, 0.4, 0.4]))
    0.30 [0.18, 0.42]
    """
    a, b = _pair(first, second)
    return bootstrap(a - b, statistic, confidence=confidence, resamples=resamples, seed=seed)


def compare_pairs(
    first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95
) -> PairedComparison:
    """Compare two yes-or-no outcomes of the same examples, such as "still correct under attack".

    The interval of the difference is Newcombe's (Statistics in Medicine 17, 1998, method 10), which
    keeps its coverage near 0 and 1 and without disagreeing pairs; the test is McNemar's, exact.

    first, second: (n,) bool, n at least 1.

    Raises: ValueError when they are empty or not of one length.

    >>> from quintain.bench.report.statistics import compare_pairs
    >>> robust = [True] * 70 + [False] * 30
    >>> defended = [True] * 60 + [False] * 10 + [True] * 25 + [False] * 5
    >>> found = compare_pairs(defended, robust)
    >>> print(found.difference, f"p = {found.p_value:.3f}")
    0.15 [0.03, 0.26] p = 0.017
    """
    a, b = (one.astype(bool) for one in _pair(first, second))
    if not len(a):
        raise ValueError("there are no examples to compare")
    both, only_a, only_b, neither = (int(one.sum()) for one in (a & b, a & ~b, ~a & b, ~a & ~b))
    from scipy.stats import binomtest

    differing = only_a + only_b
    p_value = float(binomtest(only_a, differing).pvalue) if differing else 1.0
    difference = (only_a - only_b) / len(a)
    low, high = _newcombe(both, only_a, only_b, neither, confidence)
    return PairedComparison(Estimate(difference, low, high, len(a)), only_a, only_b, p_value)


def median_interval(values: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """The median of numbers of which some are known to be larger than all others only: inf.

    The interval is exact for any distribution: its ends are those of the sorted numbers that the
    binomial law says enclose the median (a bootstrap of a median covers less, 0.92 of 80 numbers).
    They may be inf as well. The median is the lower of the two in the middle.

    values: (n,), without nan.

    >>> from quintain.bench.report.statistics import median_interval
    >>> print(median_interval([0.01, 0.02, 0.02, 0.03, 0.04, 0.05, float("inf")]))
    0.03 [0.01, inf]
    """
    from scipy.stats import binom  # as above

    sample = np.sort(np.asarray(values, dtype=np.float64))
    n = len(sample)
    if not n:
        return Estimate(np.nan, np.nan, np.nan, 0)
    outer = max(int(binom.ppf((1 - confidence) / 2, n, 0.5)), 1)
    ends = (float(sample[outer - 1]), float(sample[n - outer]))
    return Estimate(float(sample[(n - 1) // 2]), *ends, n)


def curve_area(epsilons: Sequence[float], accuracies: Sequence[float], clean: float) -> float:
    """Mean accuracy over [0, largest epsilon]: the trapezoid area below the curve, over its width.

    The curve starts at (0, clean). 1 is perfect at every epsilon of the grid, 0 is never right.

    >>> from quintain.bench.report.statistics import curve_area
    >>> round(curve_area([0.1, 0.2], [0.5, 0.0], clean=1.0), 4)
    0.5
    """
    from scipy.integrate import trapezoid  # as above

    x = np.array([0.0, *epsilons])
    y = np.array([clean, *accuracies])
    order = np.argsort(x, kind="stable")
    return float(trapezoid(y[order], x[order]) / x.max())


def _newcombe(
    both: int, only_a: int, only_b: int, neither: int, confidence: float
) -> tuple[float, float]:
    """Square and add the two proportions' Wilson intervals, by their correlation."""
    n = both + only_a + only_b + neither
    p_a, p_b = (both + only_a) / n, (both + only_b) / n
    (low_a, high_a), (low_b, high_b) = (
        interval(count, n, confidence) for count in (both + only_a, both + only_b)
    )
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    product: float = both * neither - only_a * only_b
    if product > 0:  # a correction for continuity, of positive correlation alone
        product = max(product - n / 2, 0.0)
    phi = product / margins**0.5 if margins else 0.0

    def distance(up: float, down: float) -> float:
        return float(max(up**2 - 2 * phi * up * down + down**2, 0.0) ** 0.5)

    difference = p_a - p_b
    return (
        max(difference - distance(p_a - low_a, high_b - p_b), -1.0),
        min(difference + distance(high_a - p_a, p_b - low_b), 1.0),
    )


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"pairs must be (n,) and (n,), not {a.shape} and {b.shape}")
    return a, b


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1:
        raise ValueError(f"values must be (n,), not {sample.shape}")
    return sample[np.isfinite(sample)]
