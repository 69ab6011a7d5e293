"""One evaluation as HTML for a notebook: a table of the curve, its drawing, and the flags."""

from collections.abc import Sequence
from html import escape
from importlib import resources

import pandas as pd

from ...api.flags import Flag
from ...api.shared.safe_text import plain
from .charts import Axis, Series, line_chart, small
from .sections import curve_points, epsilon_axis

_STYLE = """
.quintain { font: 14px/1.5 system-ui, sans-serif; max-width: 640px; }
.quintain table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.quintain th, .quintain td { padding: 2px 14px 2px 0; text-align: right; border: 0; }
"""
_CHART = (".grid", ".tick", ".label", ".line", ".mark", ".band", ".chart", ".s0")


def result_html(title: str, curve: pd.DataFrame, flags: Sequence[Flag]) -> str:
    """curve: as `Result.curve`, a row for each epsilon."""
    first = curve.iloc[0]
    clean = float(first["clean_accuracy"])
    rows = "".join(
        f"<tr><th scope=row>{_text(one['epsilon'])}</th><td>{one['robust_accuracy']:.3f}</td>"
        f"<td>{one['ci_low']:.3f} to {one['ci_high']:.3f}</td></tr>"
        for one in curve.to_dict("records")
    )
    head = "<tr><th>epsilon</th><th>robust accuracy</th><th>95% interval</th></tr>"
    listed = "".join(
        f"<li><b>{_text(one)}</b>: {_text(one.meaning)} What to do: {_text(one.remedy)}.</li>"
        for one in flags
    )
    below = f"<ul>{listed}</ul>" if flags else "<p>no flags</p>"
    return (
        f'<div class="quintain"><style>{_STYLE}{_style()}</style><p><b>{_text(title)}</b>, '
        f"{int(first['n_examples']):,} examples, clean accuracy {clean:.3f}</p>"
        f"<table>{head}{rows}</table>{_drawing(title, curve)}{below}</div>"
    )


def _drawing(title: str, curve: pd.DataFrame) -> str:
    series = Series(title, 0, curve_points(curve, title))
    frame = small(epsilon_axis("epsilon", curve["epsilon"]), Axis("robust accuracy", 0.0, 1.0))
    return line_chart(title, [series], frame)


def _style() -> str:
    """The rules of the page's style sheet that charts need, for this result alone."""
    sheet = resources.files(__package__).joinpath("style.css").read_text("utf-8")
    rules = [line for line in sheet.splitlines() if line.startswith(_CHART) and "}" in line]
    colours = "--line: #d8dee4; --soft: #6a7480; --paper: transparent; --c0: currentColor;"
    return f".quintain {{ {colours} }}\n" + "\n".join(f".quintain {one}" for one in rules)


def _text(value: object) -> str:
    return escape(plain(str(value)))
