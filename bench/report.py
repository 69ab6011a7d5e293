"""Tables for people: Markdown, LaTeX, HTML and CSV of the same figures. No torch here."""

from typing import Literal

import pandas as pd
from tabulate import tabulate

Format = Literal["csv", "markdown", "latex", "html"]
FORMATS: tuple[Format, ...] = ("csv", "markdown", "latex", "html")

_HASHES = ("config_hash", "weights_hash")


def tradeoff_table(tradeoff: pd.DataFrame) -> str:
    """Markdown: robust accuracy, a row for each attack on a model, a column for each epsilon."""
    rows = []
    keys = ["dataset", "norm", "model", "defense", "attack"]
    for (dataset, norm, model, defense, attack), part in tradeoff.groupby(keys, sort=False):
        first = part.iloc[0]
        rows.append(
            {"model": model, "defense": defense, "attack": attack}
            | {"clean": f"{first['clean_accuracy']:.2f}"}
            | {f"{row.epsilon}": f"{row.robust_accuracy:.2f}" for row in part.itertuples()}
            | {"queries": _count(first["queries_mean"]), "flags": first["flags"]}
        )
        heading = f"{dataset}, {norm}, {first['n_examples']} examples"
    table = pd.DataFrame(rows).fillna("")
    if not table["flags"].any():
        table = table.drop(columns="flags")
    left = ("left",) * 3
    right = ("right",) * (len(table.columns) - 3)
    text = _markdown(table, left + right)
    return f"Robust accuracy at each epsilon ({heading}):\n\n{text}"


def leaderboard_table(table: pd.DataFrame, form: Format = "markdown") -> str:
    """Write the leaderboard in a format; all but CSV round the figures and shorten the hashes."""
    if form == "csv":
        return table.to_csv(index=False, lineterminator="\n")
    shown = table.copy()
    interval = [
        f"{low:.3f} to {high:.3f}"
        for low, high in zip(shown.pop("ci_low"), shown.pop("ci_high"), strict=True)
    ]
    shown.insert(list(shown.columns).index("robust_accuracy") + 1, "95% interval", interval)
    for name in ("clean_accuracy", "robust_accuracy", "curve_area"):
        shown[name] = shown[name].map("{:.3f}".format)
    for name in _HASHES:
        if name in shown:
            shown[name] = shown[name].str[:10]
    shown = shown.rename(columns=lambda name: str(name).replace("_", " "))
    if form == "latex":
        return str(shown.to_latex(index=False, escape=True))
    if form == "html":
        return str(shown.to_html(index=False, border=0)) + "\n"
    return _markdown(shown, None) + "\n"


def _markdown(table: pd.DataFrame, align: tuple[str, ...] | None) -> str:
    return tabulate(
        table,
        headers="keys",
        tablefmt="github",
        showindex=False,
        disable_numparse=True,
        colalign=align,
    )


def _count(value: float) -> str:
    return "" if pd.isna(value) else f"{value:,.0f}"
