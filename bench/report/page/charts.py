"""Charts as inline SVG: drawn by classes, so that the page's style colours them, dark mode too.

Every point carries its numbers as a `title`, which browsers show and screen readers read, so that
the charts need no script. Series differ by dashes and markers as well as by colour.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from ...api.shared.safe_text import plain

WORST = -1  # the number of the worst case over attacks: a broad pale line below the others
STYLES = 8  # looks of series in the style sheet, `.s0` to `.s7`
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 12, 44
_TICKS = 5


@dataclass(frozen=True)
class Point:
    """A point with the ends of its interval. note: what is shown where somebody points at it."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan
    note: str = ""
    x_low: float = math.nan
    x_high: float = math.nan


@dataclass(frozen=True)
class Series:
    """Points of one look. number: which; it is the same for a model in all charts of a page."""

    name: str
    number: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Axis:
    """An axis. ticks: (value, text); by default five round ones."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]] = ()
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value is, from 0 to 1."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.low))
        return (at - low) / ((high - low) or 1.0)

    def marks(self) -> Sequence[tuple[float, str]]:
        """The ticks that are drawn."""
        if self.ticks:
            return self.ticks
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [(10.0**one, f"{10**one:,}") for one in range(first, last + 1)]
        step = _round_step((self.high - self.low) / _TICKS)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(one * step, f"{one * step:g}") for one in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """Both axes, and how large they are drawn, in units of the drawing."""

    x: Axis
    y: Axis
    width: int = 640
    height: int = 360

    @property
    def right(self) -> int:
        """Where the axis along x ends."""
        return self.width - _RIGHT

    @property
    def bottom(self) -> int:
        """Where the axis along y ends."""
        return self.height - _BOTTOM

    def across(self, value: float) -> float:
        """Where a value of x is."""
        return _LEFT + self.x.place(value) * (self.right - _LEFT)

    def down(self, value: float) -> float:
        """Where a value of y is."""
        return self.bottom - self.y.place(value) * (self.bottom - _TOP)

    def at(self, x: float, y: float) -> str:
        """Where a point is."""
        return f"{self.across(x):.1f},{self.down(y):.1f}"


def small(x: Axis, y: Axis) -> Frame:
    """Of a chart beside others."""
    return Frame(x, y, 400, 260)


def line_chart(title: str, series: Sequence[Series], frame: Frame) -> str:
    """Curves with the bands of their intervals. title: for those who do not see it."""
    parts = [_axes(frame), *(_band(one, frame) for one in series)]
    for one in series:
        line = " ".join(frame.at(point.x, point.y) for point in one.points)
        marks = "".join(_marker(point, one, frame) for point in one.points)
        inner = f'<polyline class="line" points="{line}"/>{marks}'
        parts.append(_group(one, inner))
    return _svg(title, frame, parts)


def scatter_chart(title: str, series: Sequence[Series], frame: Frame) -> str:
    """A point for each series, with its intervals along both axes."""
    parts = [_axes(frame)]
    for one in series:
        crosses = "".join(_cross(point, frame) for point in one.points)
        marks = "".join(_marker(point, one, frame, size=5.0) for point in one.points)
        parts.append(_group(one, crosses + marks))
    return _svg(title, frame, parts)


def interval_bar(value: float, low: float, high: float) -> str:
    """A number from 0 to 1 and its interval in one line of a table."""
    if math.isnan(value):
        return ""
    return (
        '<svg class="bar" viewBox="0 0 100 12" aria-hidden="true">'
        '<path class="rail" d="M0 6H100"/>'
        f'<path class="reach" d="M{100 * low:.1f} 6H{100 * high:.1f}"/>'
        f'<circle class="dot" cx="{100 * value:.1f}" cy="6" r="3"/></svg>'
    )


def key(number: int) -> str:
    """The look of a series, for a legend or a table."""
    one = Series("", number, ())
    return (
        f'<svg class="key {_look(one)}" viewBox="0 0 34 12" aria-hidden="true">'
        '<path class="line" d="M1 6H33"/>'
        f"{_shape(one, 17.0, 6.0, 3.5)}</svg>"
    )


def _svg(title: str, frame: Frame, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{_text(title)}">{"".join(parts)}</svg>'
    )


def _text(text: str) -> str:
    """A text from outside, as a part of the page."""
    return escape(plain(text))


def _group(one: Series, inner: str) -> str:
    return f'<g class="series {_look(one)}" data-series="{one.number}">{inner}</g>'


def _look(one: Series) -> str:
    if one.number == WORST:
        return "worst"
    return f"s{one.number % STYLES} d{one.number // STYLES % 4}"


def _axes(frame: Frame) -> str:
    """Grid, ticks and labels of both axes."""
    lines = []
    for value, text in _apart(frame.x.marks(), frame.across):
        at = frame.across(value)
        lines.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{frame.bottom}"/>')
        lines.append(
            f'<text class="tick" x="{at:.1f}" y="{frame.bottom + 17}" text-anchor="middle">'
            f"{_text(text)}</text>"
        )
    for value, text in frame.y.marks():
        at = frame.down(value)
        lines.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{frame.right}"/>')
        lines.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">'
            f"{_text(text)}</text>"
        )
    middle, up = (_LEFT + frame.right) / 2, (_TOP + frame.bottom) / 2
    lines.append(
        f'<text class="label" x="{middle}" y="{frame.height - 8}" text-anchor="middle">'
        f"{_text(frame.x.label)}</text>"
        f'<text class="label" x="14" y="{up}" text-anchor="middle" '
        f'transform="rotate(-90 14 {up})">{_text(frame.y.label)}</text>'
    )
    return "".join(lines)


def _apart(
    marks: Sequence[tuple[float, str]], place: Callable[[float], float]
) -> list[tuple[float, str]]:
    """The ticks whose texts do not touch the one before."""
    kept: list[tuple[float, str]] = []
    end = -math.inf
    for value, text in marks:
        half = 3.6 * len(text) + 3
        if place(value) - half >= end:
            kept.append((value, text))
            end = place(value) + half
    return kept


def _band(one: Series, frame: Frame) -> str:
    known = [point for point in one.points if not math.isnan(point.low)]
    if len(known) < 2:
        return ""
    above = [frame.at(point.x, point.high) for point in known]
    below = [frame.at(point.x, point.low) for point in reversed(known)]
    return (
        f'<polygon class="band series {_look(one)}" data-series="{one.number}" '
        f'points="{" ".join([*above, *below])}"/>'
    )


def _marker(point: Point, one: Series, frame: Frame, size: float = 3.5) -> str:
    shape = _shape(one, frame.across(point.x), frame.down(point.y), size)
    return f"<g><title>{_text(point.note or one.name)}</title>{shape}</g>"


def _shape(one: Series, x: float, y: float, r: float) -> str:
    """Circle, square, triangle or diamond."""
    if one.number == WORST:
        return f'<circle class="none" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    kind = one.number % 4
    if kind == 0:
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    if kind == 1:
        side = 1.8 * r
        return (
            f'<rect class="mark" x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" '
            f'width="{side:.1f}" height="{side:.1f}"/>'
        )
    top, wide = (1.3 * r, 1.2 * r)
    if kind == 2:
        return (
            f'<path class="mark" d="M{x:.1f} {y - top:.1f}l{wide:.1f} {2 * r:.1f}'
            f'h{-2 * wide:.1f}z"/>'
        )
    return (
        f'<path class="mark" d="M{x:.1f} {y - top:.1f}l{top:.1f} {top:.1f}'
        f'l{-top:.1f} {top:.1f}l{-top:.1f} {-top:.1f}z"/>'
    )


def _cross(point: Point, frame: Frame) -> str:
    lines = ""
    if not math.isnan(point.low):
        at = frame.across(point.x)
        lines += f"M{at:.1f} {frame.down(point.low):.1f}V{frame.down(point.high):.1f}"
    if not math.isnan(point.x_low):
        at = frame.down(point.y)
        lines += f"M{frame.across(point.x_low):.1f} {at:.1f}H{frame.across(point.x_high):.1f}"
    return f'<path class="cross" d="{lines}"/>' if lines else ""


def _round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below."""
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    steps = (one * power for one in (1.0, 2.0, 5.0, 10.0))
    return next(one for one in steps if one >= 0.999 * rough)
