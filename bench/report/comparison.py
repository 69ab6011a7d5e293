"""What a trade-off figure shows: each network's curve and point, and which of them are a sweep.

A query over the tables. No torch here.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pandas as pd

from ..api.epsilon import Epsilon
from ..api.errors import BadParameter
from ..api.flags import read_column
from .statistics import interval
from .tables import WORST_CASE

_SWEPT = re.compile(r"(.*\b[A-Za-z_][\w-]*)\s*=\s*([-+.\de/]+)")  # titles are all that tables have
_THREAT = ("dataset", "norm", "epsilon")


class Share(NamedTuple):
    """An accuracy with its 95% interval, as fractions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelSeries:
    """One model x defense: what it withstands at each epsilon, and where the leaderboard compares.

    curve: (epsilon, robust accuracy) in ascending order, from epsilon 0, which is clean accuracy.
    sweep, value: of one whose title ends in `key=value`, as others' of the same model do: the title
        without the value, and the value; else empty, and 0.
    complete: whether no attack failed on it.
    """

    model: str
    defense: str
    curve: tuple[tuple[float, Share], ...]
    clean: Share
    robust: Share
    complete: bool
    sweep: str = ""
    value: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """Everything that one figure shows, of one dataset, norm and leaderboard epsilon."""

    dataset: str
    norm: str
    epsilon: str
    n_examples: tuple[int, ...]
    series: tuple[ModelSeries, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in the order of the tables."""
        return tuple(dict.fromkeys(one.model for one in self.series))


def comparison(tradeoff: pd.DataFrame, leaderboard: pd.DataFrame) -> Comparison:
    """Read one figure's content from the tables of one or more runs.

    Raises: BadParameter when the rows are of several threats, or two networks share their names.
    """
    threats = leaderboard[list(_THREAT)].drop_duplicates()
    if len(threats) > 1:
        listed = "; ".join(
            f"{one.dataset}, {one.norm}, {one.epsilon}" for one in threats.itertuples()
        )
        raise BadParameter(
            f"a figure compares one dataset, norm and leaderboard epsilon, not {listed}: "
            "plot them apart"
        )
    worst = tradeoff[tradeoff["attack"] == WORST_CASE]
    seeded = worst["seed"].nunique() > 1
    first = threats.iloc[0]
    series = [
        _series(rows, str(first["epsilon"]), str(seed) if seeded else "")
        for (_, _, seed, _), rows in worst.groupby(
            ["model", "defense", "seed", "n_examples"], sort=False
        )
    ]
    named = Counter((one.model, one.defense) for one in series)
    for (model, defense), count in named.items():
        if count > 1:
            raise BadParameter(
                f"{count} networks are called {model} x {defense}: give one of them a label"
            )
    sizes = tuple(int(one) for one in sorted(worst["n_examples"].unique()))
    dataset, norm, epsilon = (str(first[name]) for name in _THREAT)
    return Comparison(dataset, norm, epsilon, sizes, tuple(_with_sweeps(series)))


def _series(rows: pd.DataFrame, headline: str, seed: str) -> ModelSeries:
    first = rows.iloc[0]
    model, defense = str(first["model"]), str(first["defense"])
    if rows["epsilon"].duplicated().any():
        raise BadParameter(f"two networks are called {model} x {defense}: give one of them a label")
    n = int(first["n_examples"])
    right = round(float(first["clean_accuracy"]) * n)
    clean = Share(float(first["clean_accuracy"]), *interval(right, n))
    points = {
        str(row["epsilon"]): Share(
            *(float(row[k]) for k in ("robust_accuracy", "ci_low", "ci_high"))
        )
        for row in rows.to_dict("records")
    }
    curve = sorted((Epsilon.parse(text).value, share) for text, share in points.items())
    return ModelSeries(
        model,
        f"{defense} (seed {seed})" if seed else defense,
        ((0.0, clean), *curve),
        clean,
        points[headline],
        complete=not any(flag.incomplete for flag in read_column(str(first["flags"]))),
    )


def _with_sweeps(series: Sequence[ModelSeries]) -> list[ModelSeries]:
    """Tell which of them differ in one number of their titles alone."""
    found = [_read_swept(one) for one in series]
    group = Counter((one.model, one.sweep) for one in found)
    return [
        swept if group[swept.model, swept.sweep] > 1 else one
        for one, swept in zip(series, found, strict=True)
    ]


def _read_swept(one: ModelSeries) -> ModelSeries:
    read = _SWEPT.fullmatch(one.defense)
    try:
        return replace(one, sweep=read[1], value=Epsilon.parse(read[2]).value) if read else one
    except ValueError:
        return one
