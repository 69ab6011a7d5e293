"""What a run says at its end: a row a defended model, in as many columns as the window has."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from ..api.epsilon import Epsilon
from ..api.flags import read_column
from ..api.shared.safe_text import plain, short
from .tables import WORST_CASE

_LONGEST_NAME = 28
_COLUMN = 7  # characters of an accuracy with its gap


def short_summary(tradeoff: pd.DataFrame, leaderboard: pd.DataFrame, width: int | None) -> str:
    """One row for each defended model, the best first, and how many cells have which flag.

    width: of the window; None shows every epsilon. Otherwise some are left out, but never that of
    the leaderboard, which is marked.
    """
    headline = str(leaderboard.iloc[0]["epsilon"])
    worst = tradeoff[tradeoff["attack"] == WORST_CASE]
    rows = [_row(one, worst) for one in leaderboard.to_dict("records")]
    names = [tuple(short(part, _LONGEST_NAME) for part in name) for name, _, _ in rows]
    taken = 8 + sum(max(map(len, column), default=0) + 2 for column in zip(*names, strict=True))
    every = sorted(map(str, worst["epsilon"].unique()), key=lambda one: Epsilon.parse(one).value)
    shown = _thinned(every, headline, None if width is None else (width - taken) // _COLUMN - 1)
    heads = [f"{one}*" if one == headline else one for one in shown]
    body = [
        [rank, *name, clean, *(curve.get(one, "") for one in shown)]
        for name, (rank, clean), curve in (
            (name, (row[1][0], row[1][1]), row[2]) for name, row in zip(names, rows, strict=True)
        )
    ]
    table = tabulate(
        body,
        headers=["", "model", "defense", "clean", *heads],
        tablefmt="plain",
        disable_numparse=True,
        colalign=["right", "left", "left", *["right"] * (1 + len(heads))],
    )
    first = tradeoff.iloc[0]
    left = len(every) - len(shown)
    head = (
        f"Robust accuracy on {plain(str(first['dataset']))}, {first['norm']}, "
        f"{first['n_examples']} examples, worst case over the attacks (* leaderboard"
        + (f"; {left} more epsilons in tradeoff.csv):" if left else "):")
    )
    return "\n".join([head, "", table, "", _flags(tradeoff)])


def _row(
    one: dict[str, object], worst: pd.DataFrame
) -> tuple[tuple[str, str], tuple[str, str], dict[str, str]]:
    """A defended model's names, its rank and clean accuracy, and its accuracy by epsilon."""
    name = (str(one["model"]), str(one["defense"]))
    own = worst[(worst["model"] == one["model"]) & (worst["defense"] == one["defense"])]
    accuracies = zip(own["epsilon"].astype(str), own["robust_accuracy"], strict=True)
    curve = {epsilon: f"{value:.2f}" for epsilon, value in accuracies}
    clean = "failed" if pd.isna(one["clean_accuracy"]) else f"{one['clean_accuracy']:.2f}"
    return name, (str(one["rank"]), clean), curve


def _thinned(every: Sequence[str], headline: str, room: int | None) -> list[str]:
    """As many epsilons as there is room for, evenly spread, the leaderboard's among them."""
    if room is None or len(every) <= room or headline not in every:
        return list(every)
    count = max(room, 1)
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
