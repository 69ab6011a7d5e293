"""The trade-off figure: robust against clean accuracy, drawn with matplotlib. No torch here."""

import io
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.epsilon import Epsilon
from ..api.shared.safe_text import drawn
from ..store.atomic import write_atomically
from .formats import check_ending
from .label_placement import Box, around, placed
from .sweeps import Comparison, ModelSeries

Page = Callable[[float, float], tuple[float, float]]  # accuracies to typographic points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours, told apart by every kind of colour vision; yellow is too pale on white
_COLOURS = ("#000000", "#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9", "#009E73")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_STYLES = ("-", "--", "-.", ":")
_NEAR = 9.0  # typographic points from a label's side to its point that need no line
_NORMS = {"Linf": r"$\ell_\infty$", "L2": r"$\ell_2$", "L1": r"$\ell_1$"}
_SETTINGS: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "quintain",  # the same figure is the same file
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def write_figure(path: Path, shown: Comparison) -> None:
    """Draw a comparison into a file, in the format of its ending.

    Raises: as check_ending; OSError.
    """
    check_ending(path)
    import matplotlib as mpl

    form = path.suffix.lower().removeprefix(".")
    dated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    made = io.BytesIO()
    with mpl.rc_context(_SETTINGS):
        tradeoff_figure(shown).savefig(made, format=form, dpi=200, metadata=dated.get(form))
    write_atomically(path, lambda at: at.write_bytes(made.getvalue()))


def tradeoff_figure(shown: Comparison) -> "Figure":
    """Two panels: robust accuracy against epsilon, and against clean accuracy at one epsilon.

    Colours tell defenses apart, markers and dashes models. With more defenses than colours these
    restart with the next markers, and panel (a) leaves out the intervals. The members of a sweep
    go from dark to light and are joined. Accuracies are worst cases over the attacks.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    styles = _styles(shown)
    few = len({one.defense for one in shown.series}) <= len(_COLOURS)
    figure = Figure(figsize=(7.2, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    for one in shown.series:
        _draw_curve(left, one, styles[one.model, one.defense], _title(one, shown), shaded=few)
    _draw_points(right, shown, styles)
    threat = f"{_NORMS[shown.norm]} distance $\\epsilon$ (pixels in [0, 1])"
    left.axvline(Epsilon.parse(shown.epsilon).value, color="0.6", linewidth=0.7, linestyle=":")
    left.set(xlabel=threat, ylabel="robust accuracy (%)", ylim=(-2, 102))
    left.set_xlim(left=0)
    left.xaxis.set_major_locator(MaxNLocator(5))
    left.set_title("(a) accuracy under attack", loc="left")
    right.set(xlabel="clean accuracy (%)", ylabel="robust accuracy (%)")
    right.set_title(f"(b) the trade-off at $\\epsilon$ = {shown.epsilon}", loc="left")
    for axes in (left, right):
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    handles, titles = left.get_legend_handles_labels()
    columns = min(4, len(titles))
    figure.legend(handles, titles, loc="outside lower center", ncols=columns, frameon=False)
    figure.suptitle(_caption(shown), fontsize=8, x=0.01, ha="left")
    _write_labels(figure, right, shown)
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


def _styles(shown: Comparison) -> dict[tuple[str, str], dict[str, Any]]:
    """Colour by defense, or by place in a sweep; marker and dashes by model."""
    import matplotlib as mpl

    alone = list(dict.fromkeys(one.defense for one in shown.series if not one.sweep))
    ramps = list(dict.fromkeys(one.sweep for one in shown.series if one.sweep))
    values = {
        sweep: sorted({one.value for one in shown.series if one.sweep == sweep}) for sweep in ramps
    }
    styles = {}
    colour: Any
    for one in shown.series:
        number = shown.models.index(one.model)
        if one.sweep:
            ordered = values[one.sweep]
            ramp = mpl.colormaps[("viridis", "plasma", "cividis")[ramps.index(one.sweep) % 3]]
            colour = ramp(0.85 * ordered.index(one.value) / max(1, len(ordered) - 1))
            marker = _MARKERS[(number + 1 + ramps.index(one.sweep)) % len(_MARKERS)]
        else:
            again, place = divmod(alone.index(one.defense), len(_COLOURS))
            colour = _COLOURS[place]
            number += again * len(shown.models)  # the next markers, where colours restart
            marker = _MARKERS[number % len(_MARKERS)]
        styles[one.model, one.defense] = {
            "color": colour,
            "marker": marker,
            "linestyle": _STYLES[number % len(_STYLES)],
        }
    return styles


def _draw_curve(
    axes: "Axes", one: ModelSeries, style: dict[str, Any], title: str, *, shaded: bool
) -> None:
    epsilons = [epsilon for epsilon, _ in one.curve]
    accuracies, low, high = ([100 * part for part in parts] for parts in zip(
        *(share for _, share in one.curve), strict=True
    ))  # fmt: skip
    axes.plot(epsilons, accuracies, label=title, linewidth=1.3, markersize=3.5, **style)
    if shaded:
        axes.fill_between(epsilons, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _draw_points(axes: "Axes", shown: Comparison, styles: dict[tuple[str, str], Any]) -> None:
    for sweep in _sweeps(shown):
        at = [(100 * one.clean.value, 100 * one.robust.value) for one in sweep]
        axes.plot(*zip(*at, strict=True), color="0.5", linewidth=1.0, zorder=1)
    for one in shown.series:
        style = styles[one.model, one.defense]
        x, y = one.clean, one.robust
        axes.errorbar(
            100 * x.value,
            100 * y.value,
            xerr=[[100 * (x.value - x.low)], [100 * (x.high - x.value)]],
            yerr=[[100 * (y.value - y.low)], [100 * (y.high - y.value)]],
            color=style["color"],
            marker=style["marker"],
            markersize=5,
            elinewidth=0.8,
            alpha=0.9,
        )
    axes.margins(0.12)


def _sweeps(shown: Comparison) -> list[list[ModelSeries]]:
    """The members of each model's sweeps, by their values."""
    groups: dict[tuple[str, str], list[ModelSeries]] = {}
    for one in shown.series:
        if one.sweep:
            groups.setdefault((one.model, one.sweep), []).append(one)
    return [sorted(group, key=lambda one: one.value) for group in groups.values()]


def _write_labels(figure: "Figure", axes: "Axes", shown: Comparison) -> None:
    """Name the points, clear of each other, of the bars and of the joining lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()  # the layout decides where things are
    unit = 72 / figure.dpi  # pixels to points

    def page(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((100 * x, 100 * y))
        return unit * across, unit * up

    series = shown.series
    points = [page(one.clean.value, one.robust.value) for one in series]
    texts = [axes.text(0, 0, _short(one, shown), fontsize=7, transform=None) for one in series]
    sizes = []
    for text in texts:
        box = text.get_window_extent(canvas.get_renderer())
        sizes.append((unit * box.width, unit * box.height))
        text.remove()
    frame = axes.get_window_extent()
    edge = Box(unit * frame.x0, unit * frame.y0, unit * frame.x1, unit * frame.y1)
    spots = placed(points, sizes, list(_obstacles(shown, page)), edge)
    for one, text, (x, y), (across, up), size in zip(
        series, texts, points, spots, sizes, strict=True
    ):
        moved = across - x, up - y
        _write_label(axes, one, text.get_text(), moved, size)


def _write_label(
    axes: "Axes", one: ModelSeries, text: str, moved: tuple[float, float], size: tuple[float, float]
) -> None:
    """A label some typographic points from its point, with a line to it where that is far."""
    apart = max(abs(way) - side / 2 for way, side in zip(moved, size, strict=True))
    line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3.5}
    written = axes.annotate(
        text,
        (100 * one.clean.value, 100 * one.robust.value),
        moved,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=7,
        arrowprops=line if apart > _NEAR else None,
    )
    written.set_in_layout(False)  # the layout is settled, and the label lies within the axes


def _short(one: ModelSeries, shown: Comparison) -> str:
    """What a point is called: the members of a sweep by what differs between them."""
    if not one.sweep:
        return _title(one, shown)
    return drawn(one.swept if len(shown.models) == 1 else f"{one.model}, {one.swept}")


def _obstacles(shown: Comparison, page: Page) -> Iterator[Box]:
    """Boxes over the markers, the bars of the intervals, and the lines that join sweeps."""
    for one in shown.series:
        x, y = one.clean, one.robust
        yield around(*page(x.value, y.value), 7.0, 7.0)
        (left, middle), (right, _) = page(x.low, y.value), page(x.high, y.value)
        yield Box(left, middle - 1.0, right, middle + 1.0)
        (centre, bottom), (_, top) = page(x.value, y.low), page(x.value, y.high)
        yield Box(centre - 1.0, bottom, centre + 1.0, top)
    for sweep in _sweeps(shown):
        for one, other in pairwise(sweep):
            for n in range(1, 12):
                part = n / 12
                across = one.clean.value + part * (other.clean.value - one.clean.value)
                up = one.robust.value + part * (other.robust.value - one.robust.value)
                yield around(*page(across, up), 3.0, 3.0)
