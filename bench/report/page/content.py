"""What a page shows: the tables of one or more runs, put into groups of rows that compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...api.epsilon import Epsilon
from ...api.flags import Flag, read_column
from ...api.shared.safe_text import plain
from ...store.privacy import private_values
from ...store.run_directory import read_manifest
from ..formats.numbers import blank_or
from ..gathering import Gathered
from ..tables import WORST_CASE
from .gallery import gallery
from .pictures import Picture
from .runs import Pair, Run, joined, read_runs

_COSTS = ("forward_mean", "backward_mean", "queries_mean", "seconds")
_SHOWN = ("suite", "began", "finished", "hardware", "software", "data_hash", "networks", "repeat")
_ALIKE = ("dataset", "norm", "epsilon", "n_examples", "examples_hash", "attacks_hash")


@dataclass(frozen=True)
class Row:
    """A defended model of the leaderboard. number: its look, the same in all charts."""

    number: int
    title: str
    values: Mapping[str, Any]
    flags: Sequence[Flag]
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def rank(self) -> str:
        """Its rank, with the interval of ranks where the table has one."""
        if not self.has_rank_interval:
            return blank_or("{:d}")(self.values.get("rank"))
        low, high = (int(self.values[name]) for name in ("rank_low", "rank_high"))
        return str(low) if low == high else f"{low} to {high}"

    @property
    def has_rank_interval(self) -> bool:
        """Whether it is known how sure its rank is."""
        return not _missing(self.values.get("rank_low"))


@dataclass(frozen=True)
class Group:
    """Rows that compare: of one dataset, norm, epsilon, examples and attacks.

    tradeoff: their rows of all attacks. gallery: title of a cell -> its pictures. examples,
    attacks: hashes of both.
    """

    dataset: str
    norm: str
    epsilon: str
    n_examples: int
    rows: Sequence[Row]
    tradeoff: pd.DataFrame
    queries: pd.DataFrame
    transfers: pd.DataFrame
    detections: pd.DataFrame
    gallery: Mapping[str, Sequence[Picture]]
    examples: str = ""
    attacks: str = ""

    @property
    def title(self) -> str:
        """What its rows have in common."""
        return f"{self.dataset}, {self.norm} at {self.epsilon}, {self.n_examples:,} examples"

    @property
    def has_maps(self) -> bool:
        """Whether there are maps of where networks looked."""
        return any(one.clean_map for shown in self.gallery.values() for one in shown)

    @cached_property
    def certifies(self) -> bool:
        """Whether any row has a certified accuracy."""
        return any(not _missing(one.values.get("certified_accuracy")) for one in self.rows)

    @cached_property
    def has_rank_intervals(self) -> bool:
        """Whether it is known how sure the ranks are."""
        return any(one.has_rank_interval for one in self.rows)

    @cached_property
    def _is_of_one_model(self) -> bool:
        return len({one.values["model"] for one in self.rows}) == 1

    def short_title(self, row: Row) -> str:
        """What charts call a row: the defense alone, where all rows are of one model."""
        return str(row.values["defense"]) if self._is_of_one_model else row.title


@dataclass(frozen=True)
class Provenance:
    """Where a run's numbers are from: (what, value), in a row each."""

    title: str
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Content:
    """All of a page. warnings: what is not comparable, or was left out. files: name -> CSV."""

    title: str
    groups: Sequence[Group]
    provenance: Sequence[Provenance]
    warnings: Sequence[str]
    files: Mapping[str, pd.DataFrame]


def content(
    directories: Sequence[Path],
    note: Callable[[str], None],
    known: Mapping[Path, Gathered] | None = None,
) -> Content:
    """Read everything that a page of these run directories shows.

    note: is told what was left out. known: what need not be read.

    Raises: RunDirectoryError, as `gather`.
    """
    said: list[str] = []
    runs = read_runs(directories, note, said, known)
    found = joined(runs)
    tradeoff, board = found.tables
    tables = {
        "tradeoff": tradeoff,
        "leaderboard": board,
        "queries": found.queries,
        "transfer": found.transfers,
        "detection": found.detections,
    }
    order = [(str(a), str(b)) for a, b in zip(board["model"], board["defense"], strict=True)]
    shown = gallery(runs, order)
    groups = _groups(board, tables, shown, _looks(runs))
    manifests = [_provenance(one) for one in runs]
    title = " and ".join(dict.fromkeys(one.title for one in manifests)) or "quintain"
    files = {f"{name}.csv": table for name, table in tables.items() if len(table)}
    return Content(plain(title), groups, manifests, [*_apart(groups), *said], files)


def _groups(
    board: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    shown: Mapping[Pair, Mapping[str, Sequence[Picture]]],
    looks: Mapping[Pair, Pair],
) -> list[Group]:
    """Rows that compare, together. An epsilon that is written in two ways is one."""
    alike = [name for name in _ALIKE if name in board]
    keyed = board.assign(epsilon=[Epsilon.parse(str(one)).value for one in board["epsilon"]])
    numbers: dict[Pair, int] = {}
    made = []
    for key, rows in keyed.groupby(alike, sort=False, dropna=False):
        own = board.loc[rows.index]
        taken: set[int] = set()
        for pair in zip(own["model"].astype(str), own["defense"].astype(str), strict=True):
            look = looks.get(pair, pair)  # the same model keeps its look in other tables
            unused = 1 + max(numbers.values(), default=-1)
            number = numbers.get(look, unused)
            number = unused if number in taken else number
            numbers[pair] = number
            numbers.setdefault(look, number)
            taken.add(number)
        made.append(_group(dict(zip(alike, key, strict=True)), own, tables, shown, numbers))
    return made


def _looks(runs: Sequence[Run]) -> dict[Pair, Pair]:
    """Of titles with a run's name the titles without it."""
    return {(model, new): (model, old) for run in runs for (model, old), new in run.shown.items()}


def sentence(group: Group) -> str:
    """What a group of rows says, in a sentence."""
    ranked = [one for one in group.rows if not _missing(one.values["robust_accuracy"])]
    if not ranked:
        return f"No attack on {group.title} was finished."
    best = ranked[0].values
    start = f"Of {len(group.rows)} defended models" if len(group.rows) > 1 else "The defended model"
    shown = (
        f"{best['robust_accuracy']:.0%} robust accuracy "
        f"({best['ci_low']:.0%} to {best['ci_high']:.0%}) under the worst case over "
        f"{_counted(len(str(best['attacks']).split(';')), 'attack')} in {group.norm} at "
        f"{group.epsilon}, and {best['clean_accuracy']:.0%} clean accuracy, on "
        f"{group.n_examples:,} examples of {group.dataset}."
    )
    if len(group.rows) > 1:
        return f"{start}, {ranked[0].title} withstands most: {shown}"
    return f"{start}, {ranked[0].title}, has {shown}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _apart(groups: Sequence[Group]) -> list[str]:
    """Why rows of several groups do not compare."""
    if len(groups) < 2:
        return []
    differ = {
        "datasets": {one.dataset for one in groups},
        "norms": {one.norm for one in groups},
        "epsilons": {one.epsilon for one in groups},
        "numbers of examples": {f"{one.n_examples:,}" for one in groups},
    }
    shown = [
        f"{name} ({', '.join(sorted(found))})" for name, found in differ.items() if len(found) > 1
    ]
    if len({one.examples for one in groups}) > 1 and len(differ["numbers of examples"]) == 1:
        shown.append("examples")
    if len({one.attacks for one in groups}) > 1:
        shown.append("attacks")
    why = f"different {' and '.join(shown)}" if shown else "other networks or settings"
    return [f"Rows of different tables below do not compare: {why}."]


def _group(
    key: Mapping[str, Any],
    rows: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    shown: Mapping[Pair, Mapping[str, Sequence[Picture]]],
    numbers: Mapping[Pair, int],
) -> Group:
    named = list(zip(rows["model"].astype(str), rows["defense"].astype(str), strict=True))
    texts: dict[float, str] = {}  # of equal epsilons the first way to write them
    for text in rows["epsilon"].astype(str):
        texts.setdefault(Epsilon.parse(text).value, text)

    def own(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
        """The rows of the same threat and models."""
        found = table[(table["dataset"] == key["dataset"]) & (table["norm"] == key["norm"])]
        wanted = set(named) if len(columns) == 2 else {(f"{a} x {b}",) for a, b in named}
        titles = zip(*(found[name].astype(str) for name in columns), strict=True)
        found = found[np.array([one in wanted for one in titles], dtype=bool)]
        written = [str(one) for one in found["epsilon"]]
        first = [texts.setdefault(Epsilon.parse(one).value, one) for one in written]
        return found.assign(epsilon=first)

    tradeoff = own(tables["tradeoff"], "model", "defense")
    worst = tradeoff[tradeoff["attack"] == WORST_CASE].drop_duplicates(["model", "defense"])
    costs = worst.set_index(["model", "defense"])[list(_COSTS)].astype(float).to_dict("index")
    made = [
        _row(numbers[pair], values, costs.get(pair, {}))
        for pair, values in zip(named, rows.to_dict("records"), strict=True)
    ]
    return Group(
        str(key["dataset"]),
        str(key["norm"]),
        texts[float(key["epsilon"])],
        0 if _missing(key["n_examples"]) else int(key["n_examples"]),
        made,
        tradeoff,
        own(tables["queries"], "model", "defense"),
        own(tables["transfer"], "target"),
        own(tables["detection"], "model", "defense"),
        {title: each for pair in named for title, each in shown.get(pair, {}).items()},
        str(key.get("examples_hash", "")),
        str(key.get("attacks_hash", "")),
    )


def _row(number: int, values: Mapping[Any, Any], cost: Mapping[str, float]) -> Row:
    title = f"{values['model']} x {values['defense']}"
    flags = read_column(str(values["flags"]) if values["flags"] else "")
    return Row(number, title, {str(k): v for k, v in values.items()}, flags, cost)


def _provenance(run: Run) -> Provenance:
    """What is to be known of a run. No home folder, user or computer is named."""
    manifest = read_manifest(run.directory)
    about = private_values({name: manifest[name] for name in _SHOWN if name in manifest})
    hardware, software = about.get("hardware", {}), about.get("software", {})
    suite = about.get("suite", {})
    facts = [
        ("suite", str(suite.get("name", ""))),
        ("about", str(suite.get("description", ""))),
        ("seed", str(suite.get("seed", ""))),
        ("began, finished", f"{about.get('began', '')}, {about.get('finished', '')}"),
        ("hardware", ", ".join(f"{name} {value}" for name, value in hardware.items())),
        ("software", ", ".join(f"{name} {value}" for name, value in software.items())),
        ("data", str(about.get("data_hash", ""))),
        (
            "weights",
            ", ".join(
                f"{one.get('model')} x {one.get('defense')} {str(one.get('weights_hash'))[:12]}"
                for one in about.get("networks", [])
            ),
        ),
        ("to repeat it", str(about.get("repeat", ""))),
    ]
    shown = [(name, plain(value)) for name, value in facts if value.strip(" ,")]
    return Provenance(plain(str(suite.get("name", run.name))), shown)


def _missing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))
