"""The leaderboard as text: CSV with every column, Markdown, LaTeX and HTML for people."""

import json
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ...api.flags import read_column
from ...api.shared.safe_text import markdown, plain
from ...store.spreadsheet import to_csv
from . import Format
from .markdown import markdown_table
from .numbers import blank_or
from .robustbench import entries

_WIDTH = 100  # characters of the line above a table
_COMMON = ("dataset", "norm", "epsilon", "n_examples", "attacks")  # said once where all agree
_FRACTIONS = {
    "clean_accuracy": "clean",
    "robust_accuracy": "robust",
    "curve_area": "area",
    "certified_accuracy": "certified",
}


def leaderboard_table(table: pd.DataFrame, form: Format = "markdown") -> str:
    """Write the leaderboard in a format.

    CSV has every column and digit. "robustbench" is a list of entries as RobustBench keeps them,
    in JSON. The others are for people: what all rows share is said once, accuracies have three
    digits, the rank has its interval, and flags are listed below.
    """
    if form == "csv":
        return to_csv(table)
    if form == "robustbench":
        return json.dumps(entries(table), indent=2, ensure_ascii=False) + "\n"
    heading, shown, flags = _heading(table), leaderboard_columns(table), _flags(table)
    if form == "latex":
        return _latex(heading, shown, flags)
    if form == "html":
        return _html(heading, shown, flags)
    lines = [*textwrap.wrap(markdown(heading), _WIDTH), "", markdown_table(shown)]
    if flags:
        lines += ["", *(f"- {markdown(one)}" for one in flags)]
    return "\n".join([*lines, ""])


def leaderboard_rows(table: pd.DataFrame) -> str:
    """The rows alone, in Markdown."""
    return markdown_table(leaderboard_columns(table))


def leaderboard_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The columns for people, as texts. What all rows share is left out."""
    shown = pd.DataFrame({"rank": [_rank(one) for one in table.to_dict("records")]})
    names = ["model", "defense", *(one for one in _COMMON if table[one].nunique(dropna=False) > 1)]
    for name in names:
        shown[name.replace("_", " ")] = [_text(one) for one in table[name]]
    for column, title in _FRACTIONS.items():
        if column in table and not (column == "certified_accuracy" and table[column].isna().all()):
            shown[title] = table[column].map(blank_or("{:.3f}")).to_list()
    ends = zip(table["ci_low"], table["ci_high"], strict=True)
    form = blank_or("{:.3f}")
    interval = [f"{form(low)} to {form(high)}" if form(low) else "" for low, high in ends]
    shown.insert(list(shown.columns).index("robust") + 1, "95% interval", interval)
    if "flags" in table and any(table["flags"].fillna("")):
        counts = [len(read_column(str(one))) if one else 0 for one in table["flags"].fillna("")]
        shown["flags"] = [str(one) if one else "" for one in counts]
    return shown


def _rank(row: dict[Any, Any]) -> str:
    """A rank, with its interval where it is wider."""
    rank, low, high = (row.get(name) for name in ("rank", "rank_low", "rank_high"))
    if rank is None or pd.isna(rank):
        return ""
    if low is None or high is None or pd.isna(low) or low == high:
        return str(int(rank))
    return f"{int(rank)} ({int(low)}-{int(high)})"


def _heading(table: pd.DataFrame) -> str:
    """What all rows share, in a line."""
    same = {name: table[name].iloc[0] for name in _COMMON if table[name].nunique(dropna=False) == 1}
    parts = [str(same[one]) for one in ("dataset", "norm") if one in same]
    if "epsilon" in same:
        parts.append(f"epsilon {same['epsilon']}")
    if "n_examples" in same and not pd.isna(same["n_examples"]):
        parts.append(f"{int(same['n_examples']):,} examples")
    if same.get("attacks"):
        parts.append("worst case over " + ", ".join(str(same["attacks"]).split(";")))
    return "Leaderboard: " + plain(", ".join(parts))


def _flags(table: pd.DataFrame) -> list[str]:
    """A line for each row that has flags."""
    if "flags" not in table:
        return []
    rows = table[table["flags"].fillna("") != ""].to_dict("records")
    return [plain(f"{one['model']} x {one['defense']}: {one['flags']}") for one in rows]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return plain(str(value))


def _latex(heading: str, shown: pd.DataFrame, flags: Sequence[str]) -> str:
    r"""A table for booktabs: it wants `\usepackage{booktabs}`."""
    numbers = {"rank", "95% interval", *_FRACTIONS.values()}
    columns = "".join("r" if name in numbers else "l" for name in shown.columns)
    body = shown.to_latex(index=False, escape=True, column_format=f"@{{}}{columns}@{{}}")
    head = [r"% needs \usepackage{booktabs}", *(f"% {_latex_text(one)}" for one in flags)]
    caption = rf"\caption{{{_latex_text(heading)}}}"
    table = [r"\begin{table}", r"\centering\small", caption, body.rstrip(), r"\end{table}"]
    return "\n".join([*head, *table, ""])


def _latex_text(text: str) -> str:
    """A text as pandas escapes it in a table."""
    cell = pd.DataFrame({"x": [text]}).to_latex(index=False, header=False, escape=True)
    line = next(one for one in cell.splitlines() if one.endswith(r"\\"))
    return str(line.removesuffix(r"\\").strip())


def _html(heading: str, shown: pd.DataFrame, flags: Sequence[str]) -> str:
    from html import escape

    table = shown.to_html(index=False, border=0)
    first, rest = table.split("\n", 1)
    listed = "".join(f"<li>{escape(one)}</li>" for one in flags)
    below = f"<ul>{listed}</ul>\n" if flags else ""
    return f"{first}\n  <caption>{escape(heading)}</caption>\n{rest}\n{below}"
