"""The trade-off figure: robust accuracy against epsilon and against clean accuracy. No torch."""

from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..api.epsilon import Epsilon
from ..api.shared.safe_text import drawn
from .comparison import Comparison, ModelSeries
from .figure_style import figure_style, legend_below, look, panels, ramp

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHADED = 8  # with more series than this their intervals would hide one another
_NORMS = {"Linf": r"$\ell_\infty$", "L2": r"$\ell_2$", "L1": r"$\ell_1$"}


def tradeoff_figure(shown: Comparison) -> "Figure":
    """Two panels: robust accuracy against epsilon, and against clean accuracy at one epsilon.

    Colours tell defenses apart, dashes models, and markers all series; the members of a sweep go
    from dark to light and are joined. Accuracies are worst cases over the attacks.
    """
    from matplotlib.ticker import MaxNLocator

    with figure_style():
        titles = [_title(one, shown) for one in shown.series]
        figure, (left, right) = panels(2, height=3.2, legend=titles)
        for one, title, style in zip(shown.series, titles, _looks(shown), strict=True):
            _draw_curve(left, one, style, title, shaded=len(titles) <= _SHADED)
            _draw_point(right, one, style)
        for sweep in _sweeps(shown):
            right.plot(
                [100 * one.clean.value for one in sweep],
                [100 * one.robust.value for one in sweep],
                color="0.5",
                zorder=1,
            )
        left.axvline(Epsilon.parse(shown.epsilon).value, color="0.6", linewidth=0.7, linestyle=":")
        left.xaxis.set_major_locator(MaxNLocator(5))
        left.set(
            xlabel=f"{_NORMS[shown.norm]} distance $\\epsilon$ (pixels in [0, 1])",
            ylabel="robust accuracy (%)",
            ylim=(-2, 102),
            title="(a) accuracy under attack",
        )
        right.margins(0.05)
        right.set(
            xlabel="clean accuracy (%)",
            ylabel="robust accuracy (%)",
            xlim=_within(right.get_xlim()),
            ylim=_within(right.get_ylim()),
            title=f"(b) the trade-off at $\\epsilon$ = {shown.epsilon}",
        )
        legend_below(figure, left)
        figure.suptitle(_caption(shown), x=0.01, ha="left")
    return figure


def _caption(shown: Comparison) -> str:
    model = f", {shown.models[0]}" if len(shown.models) == 1 else ""
    sizes = " or ".join(f"{one:,}" for one in shown.n_examples)
    said = "worst case over the attacks, 95% intervals"
    return drawn(f"{shown.dataset}{model}: {said}, n = {sizes}")


def _title(one: ModelSeries, shown: Comparison) -> str:
    """What the legend calls it."""
    name = one.defense if len(shown.models) == 1 else f"{one.model} x {one.defense}"
    return drawn(name if one.complete else f"{name} (an attack is missing)")


def _within(limits: tuple[float, float]) -> tuple[float, float]:
    """The limits of an axis of percentages, with room for a marker at its ends."""
    return max(limits[0], -2), min(limits[1], 102)


def _sweeps(shown: Comparison) -> list[list[ModelSeries]]:
    """The members of each model's sweeps, by their values."""
    swept = sorted(
        (one for one in shown.series if one.sweep),
        key=lambda one: (one.model, one.sweep, one.value),
    )
    return [list(group) for _, group in groupby(swept, key=lambda one: (one.model, one.sweep))]


def _looks(shown: Comparison) -> list[dict[str, Any]]:
    """Colour by defense, or by place in a sweep; dashes by model where there are several."""
    alone = list(dict.fromkeys(one.defense for one in shown.series if not one.sweep))
    ramps = list(dict.fromkeys(one.sweep for one in shown.series if one.sweep))
    places = {
        (one.model, one.defense): n / (len(sweep) - 1)
        for sweep in _sweeps(shown)
        for n, one in enumerate(sweep)
    }
    looks = []
    for number, one in enumerate(shown.series):
        dashes = shown.models.index(one.model) if len(shown.models) > 1 else None
        if one.sweep:
            colour = ramp(ramps.index(one.sweep), places[one.model, one.defense])
            looks.append({**look(number, dashes=dashes), "color": colour})
        else:
            looks.append(look(number, alone.index(one.defense), dashes))
    return looks


def _draw_curve(
    axes: "Axes", one: ModelSeries, style: dict[str, Any], title: str, *, shaded: bool
) -> None:
    epsilons = [epsilon for epsilon, _ in one.curve]
    accuracies, low, high = ([100 * part for part in parts] for parts in zip(
        *(share for _, share in one.curve), strict=True
    ))  # fmt: skip
    axes.plot(epsilons, accuracies, label=title, **style)
    if shaded:
        axes.fill_between(epsilons, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _draw_point(axes: "Axes", one: ModelSeries, style: dict[str, Any]) -> None:
    """The point and its intervals; where points lie upon one another, each is seen by its edge."""
    (x, left, right), (y, low, high) = one.clean, one.robust
    axes.errorbar(
        100 * x,
        100 * y,
        xerr=[[100 * (x - left)], [100 * (right - x)]],
        yerr=[[100 * (y - low)], [100 * (high - y)]],
        color=style["color"],
        marker=style["marker"],
        markersize=7,
        markeredgecolor="white",
        markeredgewidth=0.5,
        elinewidth=0.6,
    )
