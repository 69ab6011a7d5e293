"""How sure an order is: rank intervals, groups that are not told apart, tests of all pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DRAWS = 4000
_SEED = 20240125


@dataclass(frozen=True)
class Ranking:
    """Ranks of R rows, 1 the best, each with an interval, and the groups that are not told apart.

    low, high: (R,) int64; with 95% probability all intervals hold their row's true rank at once.
    group: (R,) int64, from 1: going down from the best row, a row opens a new group where it is
    significantly worse than the first row of the present one. better: (R, R) bool, at [j, k]
    whether row j is significantly better than row k.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    group: NDArray[np.int64]
    better: NDArray[np.bool_]


def rank_intervals(outcomes: ArrayLike, confidence: float = 0.95) -> Ranking:
    """Simultaneous intervals of the ranks of rows by their means over the same examples.

    Rows j and k differ significantly where |mean_j - mean_k| exceeds c standard errors of the
    paired difference, with the c that no pair exceeds by chance in 95% of samples. It is the
    quantile of the largest of all pairs' deviations under a Gaussian multiplier bootstrap, which
    for means is a draw from the normal distribution with the sample's covariance. A rank is then
    from 1 + the rows that are significantly better to R - those that are significantly worse.

    The squared standard error counts one disagreeing example more than there are, so that pairs
    that never or always disagree need no exception: identical rows differ by 0 and are never told
    apart; of rows that differ on each of N examples the statistic is N.

    outcomes: (R, N), numbers of the same N examples, such as whether each withstood.

    Raises: ValueError for outcomes that are not (R, N) with R, N >= 1.

    Source: Mogstad, Romano, Shaikh & Wilhelm 2024, "Inference for ranks with applications to
    mobility across neighbourhoods and academic achievement across countries", Review of Economic
    Studies 91, section 3; for the bootstrap Chernozhukov, Chetverikov & Kato 2013, arXiv:1212.6906.

    >>> from quintain.bench.report.statistics import rank_intervals
    >>> found = rank_intervals([[1] * 90 + [0] * 10, [1] * 85 + [0] * 15, [1] * 20 + [0] * 80])
    >>> found.low.tolist(), found.high.tolist(), found.group.tolist()
    ([1, 1, 3], [2, 2, 3], [1, 1, 2])
    """
    values = np.asarray(outcomes, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"outcomes must be (rows, examples), not {values.shape}")
    rows, n = values.shape
    means = values.mean(axis=1)
    covariance = np.atleast_2d(np.cov(values, bias=True)) if n > 1 else np.zeros((rows, rows))
    spread = np.diagonal(covariance)
    variance = spread[:, None] + spread[None, :] - 2.0 * covariance
    errors = np.sqrt((np.maximum(variance, 0.0) + 1.0 / n) / n)
    difference = means[:, None] - means[None, :]
    limit = _critical(covariance / n, errors, confidence)
    better = difference > limit * errors
    return Ranking(
        low=1 + better.sum(axis=0),
        high=rows - better.sum(axis=1),
        group=_groups(means, better),
        better=better,
    )


def pairwise_p_values(outcomes: ArrayLike) -> NDArray[np.float64]:
    """(R, R): exact two-sided McNemar tests of all pairs of rows, adjusted by Holm's method.

    outcomes: (R, N) bool. On the diagonal is 1.
    """
    from scipy.stats import binom

    right = np.asarray(outcomes, dtype=bool)
    only = (right[:, None, :] & ~right[None, :, :]).sum(axis=2)  # at [j, k]: j alone is right
    fewer, both = np.minimum(only, only.T), only + only.T
    p = np.where(both > 0, np.minimum(2.0 * binom.cdf(fewer, both, 0.5), 1.0), 1.0)
    above = np.triu_indices(len(right), k=1)
    p[above] = holm(p[above])
    p.T[above] = p[above]
    return np.asarray(p, dtype=np.float64)


def holm(p_values: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Adjust p values so that the chance of any false rejection is bounded (Holm 1979).

    >>> from quintain.bench.report.statistics import holm
    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _critical(
    covariance: NDArray[np.float64], errors: NDArray[np.float64], confidence: float
) -> float:
    """The quantile of the largest deviation of a pair, in its standard errors."""
    least = NormalDist().inv_cdf(0.5 + confidence / 2)
    if len(covariance) < 2:
        return least
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = np.random.default_rng(_SEED).standard_normal((_DRAWS, len(covariance)))
    means = normal @ root.T
    largest = np.zeros(_DRAWS)
    for row in range(len(covariance) - 1):
        apart = np.abs(means[:, row, None] - means[:, row + 1 :]) / errors[row, row + 1 :]
        np.maximum(largest, apart.max(axis=1), out=largest)
    return max(float(np.quantile(largest, confidence)), least)


def _groups(means: NDArray[np.float64], better: NDArray[np.bool_]) -> NDArray[np.int64]:
    group = np.zeros(len(means), dtype=np.int64)
    first, number = -1, 0
    for row in np.argsort(-means, kind="stable"):
        if first < 0 or better[first, row]:
            first, number = row, number + 1
        group[row] = number
    return group
