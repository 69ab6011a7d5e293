"""Plots that several studies draw: a number by network, and a curve by network."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..report.figure_style import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = 20  # of a curve: more lie on each other
_GAP = 0.18  # between series, where networks are 1 apart


def points_by_network(
    axes: "Axes", names: Sequence[str], series: Mapping[str, pd.DataFrame], ylabel: str
) -> None:
    """Numbers with their intervals, side by side at each network.

    series: label -> rows with `network`, `value`, `low`, `high`, one for each of the names at most.
    """
    for number, (label, rows) in enumerate(series.items()):
        found = rows.set_index("network").reindex(names)
        places = np.arange(len(names)) + _GAP * (number - (len(series) - 1) / 2)
        below, above = found["value"] - found["low"], found["high"] - found["value"]
        axes.errorbar(
            places,
            found["value"],
            yerr=[below.clip(lower=0.0), above.clip(lower=0.0)],
            capsize=2,
            label=label,
            **{**look(number), "linestyle": "none"},
        )
    axes.set_xticks(range(len(names)), [broken(name) for name in names])
    axes.set(xlim=(-0.5, len(names) - 0.5), ylabel=ylabel)


def curve(
    axes: "Axes",
    number: int,
    label: str,
    x: Sequence[float],
    rows: pd.DataFrame,
    dashes: int | None = None,
) -> None:
    """A curve with the band of its interval. rows: with `value` and maybe `low` and `high`."""
    style = look(number, dashes=dashes)
    axes.plot(x, rows["value"], label=label, markevery=max(1, len(x) // _MARKERS), **style)
    if "low" in rows:
        axes.fill_between(x, rows["low"], rows["high"], color=style["color"], alpha=0.15, lw=0)


def broken(name: str) -> str:
    """A network's title on two lines, where it names a model and a defense."""
    return name.replace(" x ", "\nx ")
