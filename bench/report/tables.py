"""Tables: every figure is a query over per-example records. No torch here."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..api.epsilon import Epsilon
from ..api.flags import CONTRADICTED, combined, raised, read_column
from ..api.shared import black_box
from ..api.shared.outcome_columns import RECORDS, Combine
from ..store.cell import Cell, Lost, per_epsilon
from .certificates import contradicted, is_certificate, without_attack
from .query_curves import SUMMARY_COLUMNS, counts_queries, query_summary
from .statistics import (
    Estimate,
    bootstrap_mean,
    curve_area,
    interval,
    median_interval,
    rank_intervals,
)

WORST_CASE = "worst-case"
TRADEOFF_COLUMNS = [
    "dataset",
    "n_examples",
    "model",
    "defense",
    "attack",
    "access",
    "norm",
    "epsilon",
    "clean_accuracy",
    "robust_accuracy",
    "ci_low",
    "ci_high",
    "attack_success_rate",
    "forward_mean",
    "backward_mean",
    "queries_mean",
    "queries_median",
    "verified",
    "flags",
    "seed",
    "seconds",
    "device",
    "dtype",
    "attacked",
    "setup_queries",
    "fidelity",
    *SUMMARY_COLUMNS,
]
LEADERBOARD_COLUMNS = [
    "rank",
    "dataset",
    "model",
    "defense",
    "norm",
    "epsilon",
    "n_examples",
    "clean_accuracy",
    "robust_accuracy",
    "ci_low",
    "ci_high",
    "curve_area",
    "attacks",
    "flags",
    "parameters",
    "config_hash",
    "weights_hash",
    "certified_accuracy",
    "examples_hash",
    "attacks_hash",
    "rank_low",
    "rank_high",
    "tie_group",
    "curve_area_low",
    "curve_area_high",
    "median_epsilon",
    "median_epsilon_low",
    "median_epsilon_high",
]
_HASHES = ["examples_hash", "attacks_hash"]
_COMPARE = ["dataset", "norm", "value", *_HASHES]  # rows that agree in these are ranked together
_SURE = ["rank_low", "rank_high", "tie_group"]


def curve_of(records: pd.DataFrame, epsilons: Sequence[str]) -> pd.DataFrame:
    """One row for each epsilon, from one cell's records.

    Robust are the examples that are right when clean and not broken. Costs are means over the
    examples that were attacked, for the whole curve: a search shares its passes between epsilons.
    `attacked` is the share of them that was tried at the epsilon itself, the others are inferred.
    """
    return pd.DataFrame(_curve(records, epsilons))


def _curve(records: pd.DataFrame, epsilons: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of `curve_of`, as plain numbers."""
    total, count = len(records), len(epsilons)
    right = records["clean_prediction"].to_numpy() == records["label"].to_numpy()
    under = records["under_attack"].to_numpy(dtype=bool)
    broken, attacked = per_epsilon(records, "broken"), per_epsilon(records, "attacked")
    costs = {name: records[name].to_numpy()[under] for name in ("forward", "backward", "queries")}
    robust = (right[:, None] & ~broken).sum(axis=0).tolist()
    low, high = zip(*(interval(one, total) for one in robust), strict=True)
    return {
        "epsilon": list(epsilons),
        "n_examples": [total] * count,
        "clean_accuracy": [float(right.mean())] * count,
        "robust_accuracy": [one / total for one in robust],
        "ci_low": list(low),
        "ci_high": list(high),
        "attack_success_rate": _means(broken[under]),
        "forward_mean": [_mean(costs["forward"])] * count,
        "backward_mean": [_mean(costs["backward"])] * count,
        "queries_mean": [_mean(costs["queries"])] * count,
        "queries_median": [_mean(costs["queries"], np.median)] * count,
        "verified": broken.sum(axis=0).tolist(),
        "attacked": _means(attacked[under]),
    }


def worst_case(
    cells: Sequence[Cell], missing: Sequence[str] = (), certificates: Cell | None = None
) -> Cell:
    """Combine the attacks on one model: an example is broken where any of them breaks it.

    Also where one of them does so at a smaller epsilon, whose ball lies within: that an attack of a
    single step fails at a larger one does not make the example robust there.

    missing: flags of the attacks whose cells are not there, which make the combination incomplete.
    certificates: of the model, which adversarial examples of the attacks may contradict; nothing
    else is taken from them, since what is not certified is not broken.
    """
    first = cells[0]
    every = combined_records([cell.records for cell in cells])
    own = (
        *missing,
        *raised(CONTRADICTED, count=int(contradicted(cells, certificates).sum())),
        *raised(black_box.FLAG, count=_black_box_alone(cells), of=len(every)),
    )
    each = [(cell.about["flags"], bool(cell.about.get("naive"))) for cell in cells]
    about = first.about | {
        "attack": WORST_CASE,
        "access": "+".join(sorted({str(cell.about["access"]) for cell in cells})),
        "flags": list(combined(each, own)),
        "seconds": sum(cell.about["seconds"] for cell in cells),
        "report": {
            "setup_queries": sum(cell.about["report"].get("setup_queries", 0) for cell in cells)
        },
    }
    return Cell(about, every)


def combined_records(records: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The records of the worst case over several attacks on the same examples, by their index.

    Of a column that only some of them have, these count.
    """
    orders = [np.argsort(one["index"].to_numpy()) for one in records]
    made: dict[str, Any] = {}
    for column in RECORDS:
        name, how = column.name, column.worst_case
        having = [(one, order) for one, order in zip(records, orders, strict=True) if name in one]
        if how == "none" or not having:
            continue
        if column.is_list:
            made[name] = list(
                _COMBINED[how]([per_epsilon(one, name)[order] for one, order in having])
            )
        else:
            made[name] = _COMBINED[how]([one[name].to_numpy()[order] for one, order in having])
    return pd.DataFrame(made)


_COMBINED: dict[Combine, Callable[[Sequence["np.ndarray[Any, Any]"]], Any]] = {
    "same": lambda each: each[0],
    "any": np.logical_or.reduce,
    "any-below": lambda each: np.logical_or.accumulate(np.logical_or.reduce(each), axis=1),
    "sum": lambda each: np.sum(each, axis=0),
    "min": np.fmin.reduce,
}


def tradeoff(cells: Iterable[Cell], lost: Iterable[Lost] = ()) -> pd.DataFrame:
    """One row for each model x defense x attack x epsilon, worst-case rows included.

    lost: the cells that have no records.
    """
    return _tradeoff(row for one in _experiments(cells, lost) for row in _rows_of(one))


def leaderboard(cells: Iterable[Cell], lost: Iterable[Lost] = ()) -> pd.DataFrame:
    """One row for each model x defense, ranked by worst-case robust accuracy (`ranked`).

    A model of which no attack's cell is there has a row without numbers. lost: as for `tradeoff`.
    """
    lost = list(lost)
    return _leaderboard([_entry(one) for one in _experiments(cells, lost) if one.attacks], lost)


def both_tables(
    cells: Iterable[Cell], lost: Iterable[Lost] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`tradeoff` and `leaderboard` in one pass: each worst case is made once, and not kept."""
    lost = list(lost)
    rows: list[dict[str, Any]] = []
    entries: list[_Entry] = []
    for one in _experiments(cells, lost):
        rows += _rows_of(one)
        entries += [_entry(one)] if one.attacks else []
    return _tradeoff(rows), _leaderboard(entries, lost)


def worst_cases(cells: Iterable[Cell], lost: Iterable[Lost] = ()) -> list[Cell]:
    """The worst case over the untargeted attacks on each defended model that met any."""
    return [one.worst for one in _experiments(cells, lost) if one.attacks]


@dataclass(frozen=True)
class _Experiment:
    """Cells that can be combined: of one network, on the same examples and grid.

    attacks: the untargeted ones. missing: those that are not there.
    """

    attacks: Sequence[Cell]
    targeted: Sequence[Cell]
    certificates: Cell | None
    missing: Sequence[Lost]

    @cached_property
    def worst(self) -> Cell:
        """The worst case over the attacks, of which there are some."""
        return worst_case(self.attacks, [one.flag for one in self.missing], self.certificates)


class _Entry(NamedTuple):
    """A row of the leaderboard. withstood: as the function; None where an attack is missing."""

    defended_model: tuple[str, ...]
    row: dict[str, Any]
    withstood: "NDArray[np.bool_] | None"


def _experiments(cells: Iterable[Cell], lost: Iterable[Lost]) -> Iterator[_Experiment]:
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.experiment, []).append(cell)
    lost_of: dict[tuple[str, ...], set[Lost]] = {}
    for one in lost:
        lost_of.setdefault(one.defended_model, set()).add(one)
    for group in groups.values():
        there = {cell.about["attack"] for cell in group}
        missing = lost_of.get(group[0].defended_model, ())
        certificates = [cell for cell in group if is_certificate(cell)]
        yield _Experiment(
            [cell for cell in group if not (is_certificate(cell) or _is_targeted(cell))],
            [cell for cell in group if _is_targeted(cell)],
            certificates[0] if certificates else None,
            sorted(one for one in missing if one.attack not in there),
        )


def _rows_of(one: _Experiment) -> list[dict[str, Any]]:
    """The rows of the trade-off table."""
    worst = [one.worst] if one.attacks else []
    certificates = [] if one.certificates is None else [one.certificates]
    cells = (*one.attacks, *worst, *one.targeted, *certificates)
    return [row for cell in cells for row in _rows(cell)]


def _tradeoff(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=TRADEOFF_COLUMNS)


def _leaderboard(entries: Sequence[_Entry], lost: Sequence[Lost]) -> pd.DataFrame:
    there = {one.defended_model for one in entries}
    absent = dict.fromkeys(
        one.defended_model for one in lost if one.defended_model not in there and one.epsilon
    )
    rows = [one.row for one in entries] + [
        _nothing([one for one in lost if one.defended_model == defended_model])
        for defended_model in absent
    ]
    table = pd.DataFrame(rows, columns=LEADERBOARD_COLUMNS)
    return ranked(_with_rank_intervals(table, [one.withstood for one in entries]))


def withstood(cell: Cell, epsilon: str | None = None) -> "NDArray[np.bool_]":
    """(N,) by index: which examples are right and not broken at an epsilon of the grid.

    epsilon: as written; by default the leaderboard's. Raises: ValueError where there is none such.
    """
    records = cell.records.sort_values("index")
    at = list(cell.about["epsilons"]).index(epsilon or cell.about["leaderboard_epsilon"])
    right = (records["clean_prediction"] == records["label"]).to_numpy()
    return np.asarray(right & ~per_epsilon(records, "broken")[:, at], dtype=bool)


def _with_rank_intervals(
    table: pd.DataFrame, outcomes: "Sequence[NDArray[np.bool_] | None]"
) -> pd.DataFrame:
    """Fill in how sure the ranks are, among the complete rows that compare.

    outcomes: of the first rows of the table, None of those that lack an attack.
    """
    values = [Epsilon.parse(one).value for one in table["epsilon"]]
    for _, rows in table.assign(value=values).groupby(_COMPARE, sort=False):
        known = [
            (row, found)
            for row in rows.index
            if row < len(outcomes) and (found := outcomes[row]) is not None
        ]
        if known:
            found = rank_intervals(np.array([one for _, one in known]))
            for column, each in zip(_SURE, (found.low, found.high, found.group), strict=True):
                table.loc[[row for row, _ in known], column] = each
    return table


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Put the rows of one or more leaderboards in their order, and rank them.

    A rank is one more than the number of rows with a larger robust accuracy (1, 2, 2, 4), among
    those that compare: of the same dataset, norm, epsilon, examples and attacks. Rows that lack an
    attack, since its cell failed or is missing, come after all others, so that a crash cannot help.
    The area below the curve and the clean accuracy order rows of one rank, and change no rank.
    """
    new = [name for name in _HASHES if name not in table]  # older tables have none
    table = table.assign(**dict.fromkeys(new, ""))
    table[_HASHES] = table[_HASHES].astype(object).fillna("")
    unsure = [name for name in _SURE if name not in table]
    table[unsure] = np.nan
    table["value"] = [Epsilon.parse(one).value for one in table["epsilon"]]
    table["incomplete"] = [
        any(flag.incomplete for flag in read_column(one)) for one in table["flags"]
    ]
    order = ["robust_accuracy", "curve_area", "clean_accuracy"]
    table = table.sort_values(
        [*_COMPARE, "incomplete", *order, "model", "defense"],
        ascending=[True] * 6 + [False] * 3 + [True] * 2,
    )
    worth = table["robust_accuracy"] - 2.0 * table["incomplete"]
    alike = [table[one] for one in _COMPARE]
    groups = worth.groupby(alike)
    table["rank"] = groups.rank(method="min", ascending=False).astype("Int64")
    # an interval is of all rows of its group: where some joined without records there is none
    known = table["rank_low"].notna() | table["incomplete"]
    whole = known.groupby(alike).transform("all")
    table.loc[~whole, _SURE] = np.nan
    table[_SURE] = table[_SURE].astype("Float64").astype("Int64")
    return table.drop(columns=["value", "incomplete", *new, *unsure]).reset_index(drop=True)


def _rows(cell: Cell) -> list[dict[str, Any]]:
    about = cell.about
    shared = {name: about[name] for name in TRADEOFF_COLUMNS if name in about}
    shared |= {
        "flags": ";".join(about["flags"]),
        "setup_queries": int(about["report"].get("setup_queries", 0)),
        "fidelity": about["report"].get("fidelity", float("nan")),
    }
    if not is_certificate(cell) and not counts_queries(cell):
        columns = _curve(cell.records, about["epsilons"])
        each = zip(*columns.values(), strict=True)
        return [shared | dict(zip(columns, row, strict=True)) for row in each]
    curve = curve_of(cell.records, about["epsilons"])
    if is_certificate(cell):
        curve = without_attack(curve)
    if counts_queries(cell):
        summary = query_summary(cell.records, about["epsilons"], about.get("query_budget"))
        curve = curve.join(summary.reset_index(drop=True))
    return [shared | {str(k): v for k, v in row.items()} for row in curve.to_dict("records")]


def _nothing(lost: Sequence[Lost]) -> dict[str, Any]:
    """The leaderboard's row of a model whose every attack failed or is missing."""
    first = lost[0]
    return {
        "rank": 0,
        **{name: getattr(first, name) for name in ("dataset", "model", "defense", "norm")},
        "epsilon": first.epsilon,
        "flags": ";".join(sorted(one.flag for one in lost)),
        "attacks": "",
        "examples_hash": first.examples,
        "attacks_hash": _attacks_hash([one.named for one in lost]),
    }


def _attacks_hash(recipes: Iterable[str]) -> str:
    """Name the attacks that every model is to meet; rows of other attacks do not compare."""
    return _joint(sorted({one for one in recipes if one}))[:12]


def _entry(one: _Experiment) -> _Entry:
    found = None if one.missing else withstood(one.worst)
    return _Entry(one.worst.defended_model, _board_row(one), found)


def _board_row(one: _Experiment) -> dict[str, Any]:
    """The row of the leaderboard."""
    group, worst = one.attacks, one.worst
    about = worst.about
    curve = curve_of(worst.records, about["epsilons"])
    at = _headline(curve, worst)
    certified = float("nan")
    if one.certificates is not None:
        proved = curve_of(one.certificates.records, about["epsilons"])
        certified = float(_headline(proved, worst)["robust_accuracy"])
    clean = float(at["clean_accuracy"])
    accuracies = curve["robust_accuracy"].tolist()
    keys = sorted(str(cell.about["key"]) for cell in group)
    area, median = _sample_intervals(worst)
    return {
        "rank": 0,
        **{name: about[name] for name in ("dataset", "model", "defense", "norm")},
        **{name: at[name] for name in ("epsilon", "n_examples", "clean_accuracy")},
        **{name: at[name] for name in ("robust_accuracy", "ci_low", "ci_high")},
        "curve_area": curve_area(about["epsilon_values"], accuracies, clean),
        "attacks": ";".join(str(cell.about["attack"]) for cell in group),
        "flags": ";".join(about["flags"]),
        "parameters": about["parameters"],
        "config_hash": keys[0] if len(keys) == 1 else _joint(keys),
        "weights_hash": about["weights_hash"],
        "certified_accuracy": certified,
        "examples_hash": about.get("examples", ""),
        "attacks_hash": _attacks_hash(
            [cell.about.get("recipe", cell.about["attack"]) for cell in group]
            + [lost.named for lost in one.missing]
        ),
        "curve_area_low": area.low,
        "curve_area_high": area.high,
        "median_epsilon": median.value,
        "median_epsilon_low": median.low,
        "median_epsilon_high": median.high,
    }


def _sample_intervals(worst: Cell) -> tuple[Estimate, Estimate]:
    """Intervals of the area below the curve, and of the median smallest epsilon.

    The area is the mean over examples of their own areas, since it is linear in them. An example
    that is wrong when clean is broken at 0, one that no attack breaks beyond the grid: inf.
    """
    epsilons = np.array(worst.about["epsilon_values"], dtype=np.float64)
    order = np.argsort(epsilons, kind="stable")
    records = worst.records
    right = (records["clean_prediction"] == records["label"]).to_numpy()
    robust = right[:, None] & ~per_epsilon(records, "broken")[:, order]
    x = np.array([0.0, *epsilons[order]])
    y = np.column_stack([right, robust]).astype(np.float64)
    areas = ((y[:, 1:] + y[:, :-1]) / 2 @ np.diff(x)) / x[-1]
    first = np.where(robust.all(axis=1), np.inf, epsilons[order][np.argmin(robust, axis=1)])
    return bootstrap_mean(areas), median_interval(np.where(right, first, 0.0))


def _headline(curve: pd.DataFrame, cell: Cell) -> dict[Any, Any]:
    """The row of a curve at the epsilon where the leaderboard compares."""
    rows = curve[curve["epsilon"] == cell.about["leaderboard_epsilon"]]
    return dict(rows.iloc[0].to_dict())


def _is_targeted(cell: Cell) -> bool:
    """Whether its attack was to reach a certain class: what it leaves is not robust."""
    return "targets" in cell.about


def _joint(keys: Sequence[str]) -> str:
    return hashlib.sha256("".join(keys).encode()).hexdigest()


def _black_box_alone(cells: Sequence[Cell]) -> int:
    """How many examples only black-box attacks break, at the epsilon where they are most."""
    white = [cell for cell in cells if cell.about["access"] == "white-box"]
    black = [cell for cell in cells if cell.about["access"] != "white-box"]
    if not white or not black:
        return 0
    either = [np.logical_or.reduce([_broken(cell) for cell in one]) for one in (white, black)]
    return black_box.beaten(*either)


def _broken(cell: Cell) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """(N, E) bool, by index: whether the attack breaks an example there or at a smaller epsilon."""
    found = per_epsilon(cell.records.sort_values("index"), "broken")
    return np.asarray(np.logical_or.accumulate(found, axis=1), dtype=bool)


def _mean(values: "NDArray[Any]", average: Callable[..., Any] = np.mean) -> float:
    return float(average(values)) if len(values) else float("nan")


def _means(values: "NDArray[np.bool_]") -> list[float]:
    """Means of the columns of (N, E)."""
    means = values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)
    return list(means.tolist())
