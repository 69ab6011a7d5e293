"""Tables for people: Markdown, LaTeX, HTML and CSV of the same figures. No torch here."""

import textwrap
from collections.abc import Sequence

import pandas as pd

from ..api.shared.safe_text import markdown
from .formats.leaderboard import leaderboard_rows
from .formats.markdown import markdown_table
from .formats.numbers import blank_or

_CELL = ["model", "defense", "attack"]
_POINTS, _WIDE = 5, 300
_BESIDES = ["flags"]


def run_summary(tradeoff: pd.DataFrame, leaderboard: pd.DataFrame) -> str:
    """Both tables of one run in Markdown, with what they share said once, and the flags below."""
    first = tradeoff.iloc[0]
    epsilon = leaderboard.iloc[0]["epsilon"]
    flagged = tradeoff[tradeoff["flags"] != ""].drop_duplicates(_CELL)
    rows = zip(*(flagged[name] for name in (*_CELL, "flags")), strict=True)
    flags = ["- {} x {} x {}: {}".format(*map(markdown, row)) for row in rows]
    dataset = markdown(str(first["dataset"]))
    parts = [
        f"Robust accuracy on {dataset}, {first['norm']}, {first['n_examples']} examples:",
        tradeoff_table(tradeoff),
        f"Leaderboard, by the worst case over the attacks at epsilon {epsilon}:",
        leaderboard_rows(leaderboard.drop(columns=_BESIDES, errors="ignore")).rstrip(),
    ]
    return "\n\n".join(parts + ["Flags:\n\n" + "\n".join(flags)] * bool(flags))


def summary(attack: str, curve: pd.DataFrame, flags: Sequence[str]) -> str:
    """Ten lines at most on one evaluation: the attack, a row for each epsilon, the flags.

    Of a long curve rows that are evenly spread are shown, the first and the last among them.
    """
    first = curve.iloc[0]
    clean, count = float(first["clean_accuracy"]), int(first["n_examples"])
    head = f"Result of {attack}"
    count_line = f"{count:,} examples, clean accuracy {clean:.3f}"
    left = len(curve) - _POINTS
    rows = curve if left <= 0 else curve.iloc[_spread(len(curve), _POINTS)]
    width = max(len("epsilon"), *(len(str(one)) for one in rows["epsilon"]))
    lines = [
        f"  {row['epsilon']!s:{width}}  {row['robust_accuracy']:.3f} "
        f"({row['ci_low']:.3f} to {row['ci_high']:.3f})"
        for row in rows.to_dict("records")
    ]
    more = [f"  {left} more epsilons: see curve"] if left > 0 else []
    said = f"flags: {'; '.join(flags)}" if flags else "no flags"
    shown = [head, count_line, f"  {'epsilon':{width}}  robust accuracy (95% interval)"]
    return "\n".join(
        textwrap.shorten(one, _WIDE, placeholder=" ...") if one[0] != " " else one
        for one in [*shown, *lines, *more, said]
    )


def _spread(total: int, count: int) -> list[int]:
    """Numbers below the total, evenly spread, with both ends."""
    return [round(number * (total - 1) / (count - 1)) for number in range(count)]


def tradeoff_table(tradeoff: pd.DataFrame) -> str:
    """Markdown: robust accuracy, a row for each attack on a model, a column for each epsilon.

    In the row of a model's certificates, `certified`, it is the certified accuracy.
    """
    curves = tradeoff.set_index(tradeoff.groupby(_CELL, sort=False).ngroup())
    first = curves[~curves.index.duplicated()]
    table = first[_CELL].assign(clean=first["clean_accuracy"].map("{:.2f}".format))
    for epsilon, points in curves.groupby("epsilon", sort=False):
        table[str(epsilon)] = points["robust_accuracy"].map("{:.2f}".format)
    for name in ("forward", "backward"):
        table[name] = first[f"{name}_mean"].map(blank_or("{:,.0f}"))
    return markdown_table(table, ["left"] * 3 + ["right"] * (len(table.columns) - 3))
