"""Statistics of a table's numbers, from arrays; nothing here knows of cells, files or figures."""

from .estimates import (
    Estimate,
    PairedComparison,
    bootstrap,
    bootstrap_mean,
    compare_pairs,
    curve_area,
    interval,
    mean_interval,
    median_interval,
    paired_difference,
)
from .power import smallest_detectable_difference
from .ranking import Ranking, holm, pairwise_p_values, rank_intervals

__all__ = [
    "Estimate",
    "PairedComparison",
    "Ranking",
    "bootstrap",
    "bootstrap_mean",
    "compare_pairs",
    "curve_area",
    "holm",
    "interval",
    "mean_interval",
    "median_interval",
    "paired_difference",
    "pairwise_p_values",
    "rank_intervals",
    "smallest_detectable_difference",
]
