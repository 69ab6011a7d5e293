"""What a number of examples can show."""

import math
from statistics import NormalDist


def smallest_detectable_difference(
    n: int, disagreeing: float, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest difference of two accuracies that n examples would show with this probability.

    By McNemar's two-sided test on the same examples; nan where even a difference as large as
    possible, on which all disagreeing examples agree, would not be seen.

    disagreeing: the share of examples that one of the two gets right and the other does not.

    Source: Connor 1987, Biometrics 43, equation 3, solved for the difference.

    >>> from quintain.bench.report.statistics import smallest_detectable_difference
    >>> round(smallest_detectable_difference(1000, 0.2), 3)
    0.04
    """
    if n < 1 or not 0.0 <= disagreeing <= 1.0:
        raise ValueError(f"{n} examples of which {disagreeing} disagree")
    alpha_end = NormalDist().inv_cdf(1 - alpha / 2)
    power_end = NormalDist().inv_cdf(power)

    def excess(difference: float) -> float:
        spread = math.sqrt(max(disagreeing - difference**2, 0.0))
        wanted = alpha_end * math.sqrt(disagreeing) + power_end * spread
        return difference * math.sqrt(n) - wanted

    if excess(disagreeing) < 0.0 or disagreeing == 0.0:
        return math.nan
    low, high = 0.0, disagreeing
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) >= 0.0 else (middle, high)
    return high
