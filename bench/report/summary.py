"""What a run says at its end: a row a defended model, in as many columns as the window has."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from ..api.epsilon import Epsilon
from ..api.flags import read_column
from ..api.shared.safe_text import plain, short
from .tables import WORST_CASE

_LONGEST_NAME, _SHORTEST_NAME = 28, 8
Row = tuple[tuple[str, str], tuple[str, str], dict[str, str]]  # names; rank, clean; by epsilon


def short_summary(tradeoff: pd.DataFrame, leaderboard: pd.DataFrame, width: int | None) -> str:
    """One row for each defended model, the best first, and how many cells have which flag.

    width: of the window; None shows every epsilon. Otherwise some are left out, but never that of
    the leaderboard, which is marked.
    """
    headline = str(leaderboard.iloc[0]["epsilon"])
    worst = tradeoff[tradeoff["attack"] == WORST_CASE]
    rows = [_row(one, worst) for one in leaderboard.to_dict("records")]
    every = sorted(map(str, worst["epsilon"].unique()), key=lambda one: Epsilon.parse(one).value)
    shown, table = _fitted(rows, every, headline, width)
    first = tradeoff.iloc[0]
    left = len(every) - len(shown)
    head = (
        f"Robust accuracy on {plain(str(first['dataset']))}, {first['norm']}, "
        f"{first['n_examples']} examples, worst case over the attacks (* leaderboard"
        + (f"; {left} more epsilons in tradeoff.csv):" if left else "):")
    )
    return "\n".join([head, "", *table, "", _flags(tradeoff)])


def _fitted(
    rows: Sequence[Row], every: Sequence[str], headline: str, width: int | None
) -> tuple[list[str], list[str]]:
    """The most epsilons, and with one left the longest names, that fit; and the table's lines."""
    tries = [(count, _LONGEST_NAME) for count in range(len(every), 0, -1)]
    tries += [(1, longest) for longest in range(_LONGEST_NAME - 1, _SHORTEST_NAME - 1, -1)]
    for count, longest in tries:
        shown = _thinned(every, headline, count)
        heads = [f"{one}*" if one == headline else one for one in shown]
        body = [
            [rank, *(short(part, longest) for part in names), clean]
            + [curve.get(one, "") for one in shown]
            for names, (rank, clean), curve in rows
        ]
        table = _laid_out([["", "model", "defense", "clean", *heads], *body])
        if width is None or max(map(len, table)) <= width:
            break
    return shown, table


def _laid_out(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose second and third columns, the names, are flushed left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            one.ljust(room) if place in (1, 2) else one.rjust(room)
            for place, (one, room) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def _row(one: dict[str, object], worst: pd.DataFrame) -> Row:
    """A defended model's names, its rank and clean accuracy, and its accuracy by epsilon."""
    name = (str(one["model"]), str(one["defense"]))
    own = worst[(worst["model"] == one["model"]) & (worst["defense"] == one["defense"])]
    accuracies = zip(own["epsilon"].astype(str), own["robust_accuracy"], strict=True)
    curve = {epsilon: f"{value:.2f}" for epsilon, value in accuracies}
    clean = "failed" if pd.isna(one["clean_accuracy"]) else f"{one['clean_accuracy']:.2f}"
    rank = "" if pd.isna(one["rank"]) else str(one["rank"])
    return name, (rank, clean), curve


def _thinned(every: Sequence[str], headline: str, count: int) -> list[str]:
    """So many epsilons, evenly spread, the leaderboard's among them."""
    places = {round(i * (len(every) - 1) / max(count - 1, 1)) for i in range(count)}
    if headline in every and (at := every.index(headline)) not in places:
        places.remove(min(places, key=lambda one: abs(one - at)))
        places.add(at)
    return [every[one] for one in sorted(places)]


def _flags(tradeoff: pd.DataFrame) -> str:
    cells = tradeoff.drop_duplicates(["model", "defense", "attack"])
    alone = cells[cells["attack"] != WORST_CASE]["flags"].fillna("")
    counts = Counter(flag.name for text in alone for flag in read_column(str(text)))
    if not counts:
        return "No flags."
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    shown = ", ".join(f"{name} ({count} cell{'s' * (count != 1)})" for name, count in ordered)
    return f"Flags: {shown}."
