"""How every figure looks and is saved: one size of type, and looks that need no colour to differ.

    with figure_style():
        figure, (left, right) = panels(2, height=3.4)
        left.plot(x, y, label="pgd", **look(0))
        legend_below(figure, left)
    save_figure(figure, Path("curves.svg"))

matplotlib is imported when a figure is made, torch never.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.errors import BadParameter, QuintainError, closest
from ..store.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
WIDTH = 7.2  # inches, of two columns of text
_LINE = 0.19  # inches, of a line in a legend
_CHARACTERS, _HANDLE = 130, 12  # of a legend's line; in the room of a handle and its gaps
# Okabe & Ito's colours, told apart by every kind of colour vision; yellow is too pale on white
_COLOURS = ("#000000", "#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9", "#009E73")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_RAMPS = ("viridis", "cividis", "plasma")  # from dark to light, in grey too
_SETTINGS: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "figure.titlesize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 3.2,  # as long as the longest pattern of dashes
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "savefig.dpi": 200,
    "svg.hashsalt": "quintain",  # the same figure is the same file
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Within, figures are made in this style."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        yield


def panels(
    count: int, height: float, legend: Sequence[str] = (), across: int | None = None
) -> "tuple[Figure, tuple[Axes, ...]]":
    """A figure with panels side by side.

    height: of a panel, in inches. legend: the titles of one below them, which gets its room.
    across: in a row at most; by default all are in one.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(count, across or count)
    lines = -(-count // columns)
    size = (WIDTH, height * lines + _LINE * _legend_shape(legend)[0])
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.06))
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, tuple(axes[:count])


def look(number: int, colour: int | None = None, dashes: int | None = None) -> dict[str, Any]:
    """Colour, marker and dashes of a series, as matplotlib's `plot` takes them.

    number: the series'. By markers and dashes alone 40 differ. colour, dashes:
        numbers of their own, where either is to mean something.
    """
    return {
        "color": _COLOURS[(number if colour is None else colour) % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[(number if dashes is None else dashes) % len(_DASHES)],
    }


def ramp(sweep: int, place: float) -> Any:
    """The colour of a place from 0 to 1 in an ordered series, dark to light. sweep: which one."""
    import matplotlib as mpl

    return mpl.colormaps[_RAMPS[sweep % len(_RAMPS)]](0.85 * place)


def legend_below(figure: "Figure", axes: "Axes") -> None:
    """Put the legend of one panel below all."""
    handles, titles = axes.get_legend_handles_labels()
    columns = _legend_shape(titles)[1]
    figure.legend(handles, titles, loc="outside lower center", ncols=columns)


def _legend_shape(titles: Sequence[str]) -> tuple[int, int]:
    """Rows and columns of a legend as wide as the figure at most."""
    widest = max(1, min(4, _CHARACTERS // (_HANDLE + max(map(len, titles), default=0))))
    rows = math.ceil(len(titles) / widest)
    return rows, math.ceil(len(titles) / max(1, rows))


def check_ending(path: Path) -> None:
    """Look whether a figure can be written in the format that a file's name asks for.

    Raises: BadParameter for another ending; QuintainError without matplotlib.
    """
    if path.suffix.lower() not in ENDINGS:
        near = closest(path.suffix, ENDINGS) or f"; there are {', '.join(ENDINGS)}"
        raise BadParameter(f"{path} ends in '{path.suffix}', which is no format of figures{near}")
    if find_spec("matplotlib") is None:
        raise QuintainError(
            "a figure needs the package matplotlib, not installed: "
            "pip install 'quintain[figures]' brings it"
        )


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure into a file, in the format of its ending. The same figure is the same file.

    Raises: as check_ending; OSError.
    """
    check_ending(path)
    form = path.suffix.lower().removeprefix(".")
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    made = io.BytesIO()
    with figure_style():
        figure.savefig(made, format=form, metadata=undated.get(form))
    write_atomically(path, lambda at: at.write_bytes(made.getvalue()))
