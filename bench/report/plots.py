"""Figures of a run's tables by kind: curves, heat maps, queries. The trade-off is in `figure`."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..api.epsilon import Epsilon
from ..api.errors import BadParameter
from ..api.shared.safe_text import drawn
from .figure_style import WIDTH, figure_style, legend_below, look, panels
from .tables import WORST_CASE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 12  # panels of one figure
_ACROSS = 3


def result_figure(curve: pd.DataFrame, title: str) -> "Figure":
    """One evaluation's robust accuracy against epsilon, with its 95% interval."""
    with figure_style():
        figure, (axes,) = panels(1, height=2.8)
        _curve(axes, curve, 0, drawn(title))
        axes.set(xlabel="epsilon", ylabel="robust accuracy", ylim=(-0.02, 1.02))
        axes.set_title(drawn(title))
    return figure


def curves_figure(tradeoff: pd.DataFrame, epsilon: str) -> "Figure":
    """A panel for each defended model, a curve for each attack; a line at the epsilon."""
    groups = list(tradeoff.groupby(["model", "defense"], sort=False))[:_MOST]
    attacks = list(dict.fromkeys(tradeoff["attack"]))
    with figure_style():
        figure, grid = _panels(len(groups), attacks)
        for axes, ((model, defense), rows) in zip(grid, groups, strict=False):
            for number, attack in enumerate(attacks):
                own = rows[rows["attack"] == attack]
                if len(own):
                    _curve(axes, own, number, drawn(str(attack)), shaded=attack == WORST_CASE)
            axes.axvline(Epsilon.parse(epsilon).value, color="0.6", lw=0.7, ls=":")
            axes.set(ylim=(-0.02, 1.02), title=_short(f"{model} x {defense}"))
        norm = str(tradeoff["norm"].iloc[0])
        _outer(grid, len(groups), f"epsilon, {norm}", "robust accuracy")
        legend_below(figure, grid[0])
    return figure


def heatmap_figure(tradeoff: pd.DataFrame, epsilon: str) -> "Figure":
    """Robust accuracy at an epsilon: a row a defended model, a column an attack."""
    at = tradeoff[tradeoff["epsilon"].astype(str) == epsilon]
    rows = at["model"].astype(str) + " x " + at["defense"].astype(str)
    table = at.assign(row=rows).pivot_table("robust_accuracy", "row", "attack", sort=False)
    order = [one for one in table.columns if one != WORST_CASE]
    return _matrix(table[[*order, WORST_CASE]], f"robust accuracy at {epsilon}")


def transfer_figure(transfers: pd.DataFrame, epsilon: str) -> "Figure":
    """Success at an epsilon of the examples made on the row's network, on the column's.

    Raises: BadParameter where nothing was transferred.
    """
    at = transfers[transfers["epsilon"].astype(str) == epsilon]
    if not len(at):
        raise BadParameter("nothing was transferred: a suite says `transfer = true` for it")
    table = at.pivot_table("attack_success_rate", "source", "target", sort=False)
    return _matrix(table, f"attack success rate at {epsilon}")


def queries_figure(queries: pd.DataFrame, epsilon: str) -> "Figure":
    """A panel for each defended model: success against queries at an epsilon.

    Raises: BadParameter where no attack counted queries.
    """
    at = queries[queries["epsilon"].astype(str) == epsilon]
    if not len(at):
        raise BadParameter("no attack of this run counts queries: black-box attacks do")
    groups = list(at.groupby(["model", "defense"], sort=False))[:_MOST]
    attacks = list(dict.fromkeys(at["attack"]))
    with figure_style():
        figure, grid = _panels(len(groups), attacks)
        for axes, ((model, defense), rows) in zip(grid, groups, strict=False):
            for number, attack in enumerate(attacks):
                own = rows[rows["attack"] == attack]
                style = look(number)
                every = max(1, len(own) // 8)
                axes.plot(
                    own["queries"],
                    own["success_rate"],
                    label=drawn(str(attack)),
                    markevery=every,
                    **style,
                )
                axes.fill_between(
                    own["queries"], own["ci_low"], own["ci_high"], color=style["color"], alpha=0.12
                )
            axes.set(xscale="log", ylim=(-0.02, 1.02), title=_short(f"{model} x {defense}"))
        _outer(grid, len(groups), "queries", "attack success rate")
        legend_below(figure, grid[0])
    return figure


def _curve(
    axes: "Axes", rows: pd.DataFrame, number: int, label: str, *, shaded: bool = True
) -> None:
    """Robust accuracy against epsilon, from clean accuracy at 0."""
    x = [Epsilon.parse(str(one)).value for one in rows["epsilon"]]
    order = np.argsort(x, kind="stable")
    own = rows.iloc[order]
    style = look(number)
    at = [0.0, *(x[place] for place in order)]
    axes.plot(at, [own["clean_accuracy"].iloc[0], *own["robust_accuracy"]], label=label, **style)
    if shaded:
        axes.fill_between(at[1:], own["ci_low"], own["ci_high"], color=style["color"], alpha=0.12)


def _panels(count: int, attacks: Sequence[Any]) -> "tuple[Figure, tuple[Axes, ...]]":
    return panels(count, 2.0, [drawn(str(one)) for one in attacks], across=_ACROSS)


def _outer(grid: "Sequence[Axes]", count: int, xlabel: str, ylabel: str) -> None:
    """Labels at the left and lowest panels alone."""
    for number, axes in enumerate(grid):
        if number % _ACROSS == 0:
            axes.set_ylabel(ylabel)
        if number + _ACROSS >= count:
            axes.set_xlabel(xlabel)


def _matrix(table: pd.DataFrame, title: str) -> "Figure":
    """Shares as a picture with its numbers."""
    from matplotlib.figure import Figure

    values = table.to_numpy(dtype=float)
    with figure_style():
        size = (min(WIDTH, 2.6 + 0.75 * table.shape[1]), 1.3 + 0.27 * len(table))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.imshow(values, vmin=0.0, vmax=1.0, cmap="cividis", aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if not np.isnan(value):
                colour = "white" if value < 0.5 else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
        names = [[_short(str(one)) for one in side] for side in (table.columns, table.index)]
        axes.set_xticks(range(table.shape[1]), names[0], rotation=30, ha="right")
        axes.set_yticks(range(len(table)), names[1])
        axes.set_title(title)
        axes.grid(visible=False)
        axes.tick_params(length=0)
    return figure


def _short(text: str, most: int = 34) -> str:
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return drawn(cut)


Maker = Callable[[Mapping[str, pd.DataFrame], str], Any]
MAKERS: Mapping[str, Maker] = {
    "curves": lambda tables, epsilon: curves_figure(tables["tradeoff"], epsilon),
    "heatmap": lambda tables, epsilon: heatmap_figure(tables["tradeoff"], epsilon),
    "queries": lambda tables, epsilon: queries_figure(tables["queries"], epsilon),
    "transfer": lambda tables, epsilon: transfer_figure(tables["transfer"], epsilon),
}
