"""Intervals and summaries of the accuracies in a table."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


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
