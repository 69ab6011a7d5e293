"""What a run says at its end: a row a defended model, in as many columns as the window has."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from ..api.epsilon import Epsilon
from ..api.flags import read_column
from ..api.shared.safe_text import plain, short
from .tables import WORST_CASE

_LONGEST_NAME = 28


def short_summary(tradeoff: pd.DataFrame, leaderboard: pd.DataFrame, width: int | None) -> str:
    """One row for each defended model, the best first, and how many cells have which flag.

    width: of the window; None shows every epsilon. Otherwise some are left out, but never that of
    the leaderboard, which is marked.
    """
    headline = str(leaderboard.iloc[0]["epsilon"])
    worst = tradeoff[tradeoff["attack"] == WORST_CASE]
    rows = [_row(one, worst) for one in leaderboard.to_dict("records")]
    every = sorted(map(str, worst["epsilon"].unique()), key=lambda one: Epsilon.parse(one).value)
    for room in range(len(every), 0, -1):
        shown = _thinned(every, headline, room)
        table = _table(rows, shown, headline)
        if width is None or len(table.partition("\n")[0]) <= width:
            break
    first = tradeoff.iloc[0]
    left = len(every) - len(shown)
    head = (
        f"Robust accuracy on {plain(str(first['dataset']))}, {first['norm']}, "
        f"{first['n_examples']} examples, worst case over the attacks (* leaderboard"
        + (f"; {left} more epsilons in tradeoff.csv):" if left else "):")
    )
    return "\n".join([head, "", table, "", _flags(tradeoff)])


def _row(one: dict[Any, Any], worst: pd.DataFrame) -> tuple[list[str], dict[str, str]]:
    """A defended model's rank, names and clean accuracy, and its accuracy by epsilon."""
    own = worst[(worst["model"] == one["model"]) & (worst["defense"] == one["defense"])]
    accuracies = zip(own["epsilon"].astype(str), own["robust_accuracy"], strict=True)
    curve = {epsilon: f"{value:.2f}" for epsilon, value in accuracies}
    clean = "failed" if pd.isna(one["clean_accuracy"]) else f"{one['clean_accuracy']:.2f}"
    names = [short(str(one[name]), _LONGEST_NAME) for name in ("model", "defense")]
    return [str(one["rank"]), *names, clean], curve


def _table(
    rows: Sequence[tuple[list[str], dict[str, str]]], shown: Sequence[str], headline: str
) -> str:
    heads = [f"{one}*" if one == headline else one for one in shown]
    return str(
        tabulate(
            [[*start, *(curve.get(one, "") for one in shown)] for start, curve in rows],
            headers=["", "model", "defense", "clean", *heads],
            tablefmt="plain",
            disable_numparse=True,
            colalign=["right", "left", "left", *["right"] * (1 + len(heads))],
        )
    )


def _thinned(every: Sequence[str], headline: str, count: int) -> list[str]:
    """So many epsilons, evenly spread, the leaderboard's among them."""
    if headline not in every:
        return list(every[:count])
    places = {round(i * (len(every) - 1) / max(count - 1, 1)) for i in range(count)}
    at = every.index(headline)
    if at not in places:
        places.remove(min(places, key=lambda one: abs(one - at)))
        places.add(at)
    return [every[one] for one in sorted(places)]


def _flags(tradeoff: pd.DataFrame) -> str:
    cells = tradeoff.drop_duplicates(["model", "defense", "attack"])
    alone = cells[cells["attack"] != WORST_CASE]["flags"].fillna("")
    counts = Counter(flag.name for text in alone for flag in {*read_column(str(text))})
    if not counts:
        return "No flags."
    shown = ", ".join(
        f"{name} ({count} cell{'s' * (count != 1)})" for name, count in counts.most_common()
    )
    return f"Flags: {shown}."
