"""The charts and tables of a group of rows, as the template wants them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ...api.epsilon import Epsilon
from ...api.flags import Flag, read_column
from ..statistics import interval
from ..tables import WORST_CASE
from .charts import WORST, Axis, Frame, Point, Series, line_chart, scatter_chart, small
from .content import Group, Row

MOST_DRAWN = 24  # defended models in one chart
_SHADED = 8  # with more curves than this their bands would hide one another
MOST_COLUMNS = 12  # of the table of a chart's numbers
_SHARE = Axis("robust accuracy", 0.0, 1.0)


@dataclass(frozen=True)
class Chart:
    """A drawing with its legend: (number, name) of each series.

    numbers: the same as a table, for those who do not see it: a row for each series.
    """

    title: str
    svg: str
    legend: Sequence[tuple[int, str]]
    note: str = ""
    columns: Sequence[str] = ()
    numbers: Sequence[tuple[str, Sequence[str]]] = ()


@dataclass(frozen=True)
class HeatCell:
    """A number of a heat map. step: 0 to 10, by its value; None where there is no number."""

    text: str
    step: int | None


@dataclass(frozen=True)
class HeatMap:
    """Rows by columns, with shares from 0 to 1."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[HeatCell]]]


def curves(group: Group) -> Chart | None:
    """Worst-case robust accuracy against epsilon, a curve for each defended model."""
    rows = group.rows[:MOST_DRAWN]
    worst = group.tradeoff[group.tradeoff["attack"] == WORST_CASE]
    shaded = len(rows) <= _SHADED
    series = []
    for row in rows:
        title = group.short_title(row)
        points = curve_points(worst[_of(worst, row)], title, band=shaded)
        if points:
            series.append(Series(title, row.number, points))
    if not series:
        return None
    note = f"The first {MOST_DRAWN} rows are drawn." if len(group.rows) > MOST_DRAWN else ""
    axis = epsilon_axis(f"epsilon, {group.norm}", worst["epsilon"])
    title = "Robust accuracy against epsilon, worst case over the attacks"
    return _chart(title, series, Frame(axis, _SHARE), note)


def by_attack(group: Group) -> list[Chart]:
    """For each defended model, a curve for each attack. An attack looks the same in all of them."""
    charts = []
    axis = epsilon_axis(f"epsilon, {group.norm}", group.tradeoff["epsilon"])
    looks = _attack_looks(group)
    for row in group.rows[:MOST_DRAWN]:
        own = group.tradeoff[_of(group.tradeoff, row)]
        there = set(own["attack"])
        if len(there) < 2:
            continue
        series = [
            Series(one, number, curve_points(own[own["attack"] == one], one))
            for one, number in looks.items()
            if one in there
        ]
        title = f"Robust accuracy against epsilon, by attack: {row.title}"
        charts.append(_chart(title, series, small(axis, _SHARE), heading=group.short_title(row)))
    return charts


def _attack_looks(group: Group) -> dict[str, int]:
    """Of each attack of a group its look. The worst case comes first: it lies below the others."""
    attacks = [str(one) for one in dict.fromkeys(group.tradeoff["attack"])]
    alone = [one for one in attacks if one != WORST_CASE]
    worst = {WORST_CASE: WORST} if WORST_CASE in attacks else {}
    return {**worst, **{one: number for number, one in enumerate(alone)}}


@dataclass(frozen=True)
class Flagged:
    """A flag that attacks have, and the cells that have it, each with the flag's own text."""

    flag: Flag
    cells: Sequence[str]


def flagged(group: Group) -> list[Flagged]:
    """The flags of single attacks, of which the leaderboard shows only what the worst case has."""
    cells = group.tradeoff.drop_duplicates(["model", "defense", "attack"])
    found: dict[str, tuple[Flag, list[str]]] = {}
    for one in cells[cells["attack"] != WORST_CASE].to_dict("records"):
        title = f"{one['model']} x {one['defense']} x {one['attack']}"
        for flag in read_column(str(one.get("flags") or "")):
            found.setdefault(flag.name, (flag, []))[1].append(f"{title}: {flag}")
    return [Flagged(flag, named) for flag, named in found.values()]


def scatter(group: Group) -> Chart | None:
    """Robust against clean accuracy at the leaderboard's epsilon."""
    series = []
    for row in group.rows[:MOST_DRAWN]:
        value = row.values
        if math.isnan(_number(value["robust_accuracy"])):
            continue
        clean, robust = float(value["clean_accuracy"]), float(value["robust_accuracy"])
        note = f"{row.title}: clean {clean:.3f}, robust {robust:.3f} at {group.epsilon}"
        sides = interval(round(clean * group.n_examples), group.n_examples)
        ends = (float(value["ci_low"]), float(value["ci_high"]))
        point = Point(clean, robust, *ends, note, *sides)
        series.append(Series(group.short_title(row), row.number, [point]))
    if len(series) < 2:
        return None
    lowest = min(one.points[0].x_low for one in series)
    clean_axis = Axis("clean accuracy", math.floor(lowest * 10) / 10, 1.0)
    title = "Robust against clean accuracy"
    svg = scatter_chart(title, series, Frame(clean_axis, _SHARE))
    return Chart(title, svg, [(one.number, one.name) for one in series])


def attack_heat_map(group: Group) -> HeatMap | None:
    """Robust accuracy of each defended model under each attack at the leaderboard's epsilon."""
    at = group.tradeoff[group.tradeoff["epsilon"] == group.epsilon]
    attacks = [str(one) for one in dict.fromkeys(at["attack"]) if one != WORST_CASE]
    if len(attacks) < 2:
        return None
    columns = [*attacks, WORST_CASE]
    names = zip(at["model"], at["defense"], at["attack"], strict=True)
    values = dict(zip(names, at["robust_accuracy"], strict=True))
    rows = []
    for row in group.rows:
        pair = (row.values["model"], row.values["defense"])
        cells = [_heat(values.get((*pair, attack))) for attack in columns]
        rows.append((group.short_title(row), cells))
    return HeatMap(f"Robust accuracy at {group.epsilon}, by attack", columns, rows)


def transfer_heat_map(group: Group) -> HeatMap | None:
    """Success of each network's adversarial examples on each other one."""
    at = group.transfers[group.transfers["epsilon"] == group.epsilon]
    if not len(at):
        return None
    order = [row.title for row in group.rows]

    def ordered(names: "pd.Series[Any]") -> list[str]:
        """As on the leaderboard, then what is not on it."""
        there = list(dict.fromkeys(map(str, names)))
        return [one for one in order if one in there] + [one for one in there if one not in order]

    targets = ordered(at["target"])
    rows = []
    for source in ordered(at["source"]):
        own = at[at["source"] == source].drop_duplicates("target").set_index("target")
        rows.append((source, [_heat(own["attack_success_rate"].get(one)) for one in targets]))
    title = f"Transfer at {group.epsilon}: success of examples made on the row's network"
    return HeatMap(title, targets, rows)


def query_charts(group: Group) -> list[Chart]:
    """Success against queries at the leaderboard's epsilon, a chart for each defended model."""
    at = group.queries[group.queries["epsilon"] == group.epsilon]
    charts = []
    looks = _attack_looks(group)
    for row in group.rows[:MOST_DRAWN]:
        own = at[_of(at, row)]
        series = []
        for attack, rows in own.groupby("attack", sort=False):
            points = [
                Point(
                    float(one["queries"]),
                    float(one["success_rate"]),
                    float(one["ci_low"]),
                    float(one["ci_high"]),
                    f"{attack}: {one['success_rate']:.3f} after {one['queries']:,} queries",
                )
                for one in rows.to_dict("records")
            ]
            series.append(Series(str(attack), looks.get(str(attack), 0), points))
        most = max((point.x for one in series for point in one.points), default=0.0)
        if most > 1.0:
            x = Axis("queries", 1.0, most, logarithmic=True)
            frame = small(x, Axis("attack success rate", 0.0, 1.0))
            title = f"Success against queries: {row.title}"
            charts.append(_chart(title, series, frame, heading=group.short_title(row)))
    return charts


def _chart(
    title: str, series: Sequence[Series], frame: Frame, note: str = "", heading: str = ""
) -> Chart:
    """title: for those who do not see it. heading: for those who do, where another is enough."""
    names = dict(frame.x.marks())
    places = sorted({point.x for one in series for point in one.points})
    if len(places) > MOST_COLUMNS:
        step = (len(places) - 1) / (MOST_COLUMNS - 1)
        places = [places[round(one * step)] for one in range(MOST_COLUMNS)]
    numbers = []
    for one in series:
        known = {point.x: f"{point.y:.2f}" for point in one.points}
        numbers.append((one.name, [known.get(place, "") for place in places]))
    return Chart(
        heading or title,
        line_chart(title, series, frame),
        [(one.number, one.name) for one in series],
        note,
        [names.get(place, f"{place:,g}") for place in places],
        numbers,
    )


def curve_points(rows: pd.DataFrame, title: str, *, band: bool = True) -> list[Point]:
    """From epsilon 0, which is clean accuracy. Empty where there are no rows."""
    if not len(rows):
        return []
    clean = float(rows.iloc[0]["clean_accuracy"])
    points = [Point(0.0, clean, note=f"{title}: clean accuracy {clean:.3f}")]
    for one in rows.drop_duplicates("epsilon").to_dict("records"):
        value, low, high = (float(one[k]) for k in ("robust_accuracy", "ci_low", "ci_high"))
        note = f"{title}: {value:.3f} ({low:.3f} to {high:.3f}) at {one['epsilon']}"
        ends = (low, high) if band else (math.nan, math.nan)
        points.append(Point(Epsilon.parse(str(one["epsilon"])).value, value, *ends, note))
    return sorted(points, key=lambda point: point.x)


def epsilon_axis(label: str, epsilons: Iterable[str]) -> Axis:
    """An axis from 0 with a tick at each epsilon as it was written."""
    written = sorted(dict.fromkeys(map(str, epsilons)), key=lambda one: Epsilon.parse(one).value)
    ticks = [(0.0, "0"), *((Epsilon.parse(one).value, one) for one in written)]
    return Axis(label, 0.0, ticks[-1][0] or 1.0, ticks)


def _of(table: pd.DataFrame, row: Row) -> "pd.Series[bool]":
    model, defense = row.values["model"], row.values["defense"]
    return (table["model"] == model) & (table["defense"] == defense)


def clean_interval(row: Row, group: Group) -> str:
    """The 95% interval of a row's clean accuracy."""
    clean = _number(row.values["clean_accuracy"])
    if math.isnan(clean) or not group.n_examples:
        return ""
    low, high = interval(round(clean * group.n_examples), group.n_examples)
    return f"{low:.3f} to {high:.3f}"


def _heat(value: Any) -> HeatCell:
    number = _number(value)
    if math.isnan(number):
        return HeatCell("", None)
    return HeatCell(f"{number:.2f}", round(10 * min(max(number, 0.0), 1.0)))


def _number(value: Any) -> float:
    return math.nan if value is None or value is pd.NA else float(value)
