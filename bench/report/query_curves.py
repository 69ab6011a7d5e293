"""Queries to success: curves and summaries of black-box attacks, from records. No torch here."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..store.cell import per_epsilon
from .statistics import interval

if TYPE_CHECKING:
    from ..store.cell import Cell

CURVE_COLUMNS = ["queries", "n_attacked", "successes", "success_rate", "ci_low", "ci_high"]
SUMMARY_COLUMNS = [
    "success_queries_mean",
    "success_queries_median",
    "censored_queries_mean",
    "censored_queries_median",
]
QUERIES_COLUMNS = [
    "dataset",
    "model",
    "defense",
    "attack",
    "access",
    "norm",
    "epsilon",
    "search",
    "query_budget",
    "setup_queries",
    *CURVE_COLUMNS,
    "seed",
]
_A_DECADE = 8  # rows of a curve


def query_curve(
    records: pd.DataFrame, epsilons: Sequence[str], budget: int | None = None
) -> pd.DataFrame:
    """Share of the attacked examples that were broken with at most so many queries.

    A few rows for each epsilon, at numbers of queries evenly spaced on a logarithmic scale, from 1
    to the budget; without one, to the most that an example was given.
    """
    solved, spent = _solved(records)
    total = len(spent)
    last = budget or int(spent.max(initial=0))
    rows: list[dict[str, Any]] = []
    for point, epsilon in enumerate(epsilons if total and last else ()):
        for queries in _spaced(last):
            count = int((solved[:, point] <= queries).sum())
            low, high = interval(count, total)
            values = (queries, total, count, count / total, low, high)
            rows.append({"epsilon": epsilon, **dict(zip(CURVE_COLUMNS, values, strict=True))})
    return pd.DataFrame(rows, columns=["epsilon", *CURVE_COLUMNS])


def query_summary(
    records: pd.DataFrame, epsilons: Sequence[str], budget: int | None = None
) -> pd.DataFrame:
    """One row for each epsilon: mean and median queries to success, with two denominators.

    success: over the examples that were broken. censored: over all that were attacked, those not
    broken counted at the budget, or without one at what was spent on them: means and medians are
    then lower bounds.
    """
    solved, spent = _solved(records)
    ends = np.full(len(spent), float(budget)) if budget else spent.astype(float)
    rows = []
    for one in solved.T if len(spent) else [np.empty(0)] * len(epsilons):
        broken = one[np.isfinite(one)]
        censored = np.where(np.isfinite(one), one, ends)
        rows.append([_of(np.mean, broken), _of(np.median, broken)])
        rows[-1] += [_of(np.mean, censored), _of(np.median, censored)]
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS, index=list(epsilons))


def queries(cells: Iterable["Cell"]) -> pd.DataFrame:
    """Success against queries: some rows for each black-box attack, model and epsilon."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        if counts_queries(cell):
            about = cell.about
            shared = {name: about.get(name) for name in QUERIES_COLUMNS}
            shared["setup_queries"] = int(about["report"].get("setup_queries", 0))
            curve = query_curve(cell.records, about["epsilons"], about.get("query_budget"))
            rows += [
                shared | {str(k): v for k, v in row.items()} for row in curve.to_dict("records")
            ]
    return pd.DataFrame(rows, columns=QUERIES_COLUMNS)


def counts_queries(cell: "Cell") -> bool:
    """Whether the records tell when each example fell: one black-box attack's, and not too old."""
    access = cell.about["access"]
    return access in ("score", "decision") and "solved" in cell.records


def _solved(records: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(n, E), queries to each success, infinite where there was none, and (n,), queries spent.

    Of the n examples that were attacked.
    """
    under = records[records["under_attack"].astype(bool)]
    counts, broken = per_epsilon(under, "solved"), per_epsilon(under, "broken")
    solved = np.where(broken & (counts > 0), counts, np.inf)
    return solved, under["queries"].to_numpy(dtype=np.int64)


def _spaced(last: int) -> list[int]:
    count = round(_A_DECADE * np.log10(last)) + 1
    return [int(one) for one in np.unique(np.geomspace(1, last, max(count, 2)).round())]


def _of(average: Any, values: NDArray[np.float64]) -> float:
    return float(average(values)) if len(values) else float("nan")
