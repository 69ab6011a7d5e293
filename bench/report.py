"""Tables for people: Markdown, LaTeX, HTML and CSV of the same figures. No torch here."""

from collections.abc import Sequence
from typing import Literal

import pandas as pd
from tabulate import tabulate

Format = Literal["csv", "markdown", "latex", "html"]
FORMATS: tuple[Format, ...] = ("csv", "markdown", "latex", "html")

_CELL = ["model", "defense", "attack"]
_FRACTIONS = ("clean_accuracy", "robust_accuracy", "curve_area")
_HASHES = ("config_hash", "weights_hash")
_BESIDES = ["dataset", "norm", "n_examples", "attacks", "flags", "parameters", *_HASHES]


def run_summary(tradeoff: pd.DataFrame, leaderboard: pd.DataFrame) -> str:
    """Both tables of one run in Markdown, with what they share said once, and the flags below."""
    first = tradeoff.iloc[0]
    epsilon = leaderboard.iloc[0]["epsilon"]
    flagged = tradeoff[tradeoff["flags"] != ""].drop_duplicates(_CELL)
    flags = [
        f"- {row.model} x {row.defense} x {row.attack}: {row['flags']}" for row in _rows(flagged)
    ]
    parts = [
        f"Robust accuracy on {first['dataset']}, {first['norm']}, {first['n_examples']} examples:",
        tradeoff_table(tradeoff),
        f"Leaderboard, by the worst case over the attacks at epsilon {epsilon}:",
        leaderboard_table(leaderboard.drop(columns=_BESIDES)).rstrip(),
    ]
    return "\n\n".join(parts + ["Flags:\n\n" + "\n".join(flags)] * bool(flags))


def tradeoff_table(tradeoff: pd.DataFrame) -> str:
    """Markdown: robust accuracy, a row for each attack on a model, a column for each epsilon."""
    rows = []
    for names, curve in tradeoff.groupby(_CELL, sort=False):
        first = curve.iloc[0]
        rows.append(
            dict(zip(_CELL, names, strict=True))
            | {"clean": f"{first['clean_accuracy']:.2f}"}
            | {str(row.epsilon): f"{row.robust_accuracy:.2f}" for row in _rows(curve)}
            | {name: f"{first[f'{name}_mean']:,.0f}" for name in ("forward", "backward")}
        )
    table = pd.DataFrame(rows)
    return _markdown(table, ["left"] * 3 + ["right"] * (len(table.columns) - 3))


def leaderboard_table(table: pd.DataFrame, form: Format = "markdown") -> str:
    """Write the leaderboard in a format; all but CSV round the figures and shorten the hashes."""
    if form == "csv":
        return str(table.to_csv(index=False, lineterminator="\n"))
    shown = table.copy()
    interval = [
        f"{low:.3f} to {high:.3f}"
        for low, high in zip(shown.pop("ci_low"), shown.pop("ci_high"), strict=True)
    ]
    shown.insert(list(shown.columns).index("robust_accuracy") + 1, "95% interval", interval)
    for name in _FRACTIONS:
        shown[name] = shown[name].map("{:.3f}".format)
    for name in shown.columns.intersection(_HASHES):
        shown[name] = shown[name].str[:10]
    shown = shown.rename(columns=lambda name: str(name).replace("_", " "))
    if form == "latex":
        return str(shown.to_latex(index=False, escape=True))
    if form == "html":
        return str(shown.to_html(index=False, border=0)) + "\n"
    return _markdown(shown) + "\n"


def _rows(table: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in table.iterrows()]


def _markdown(table: pd.DataFrame, align: Sequence[str] | None = None) -> str:
    escaped = table.map(lambda value: str(value).replace("|", "\\|"))
    return str(
        tabulate(
            escaped,
            headers="keys",
            tablefmt="github",
            showindex=False,
            disable_numparse=True,
            colalign=align,
        )
    )
