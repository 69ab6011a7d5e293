"""What a page shows: the tables of one or more runs, put into groups of rows that compare."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...api.epsilon import Epsilon
from ...api.flags import Flag, read_column
from ...api.shared.safe_text import plain
from ...store.privacy import private
from ...store.run_directory import read_cells, read_manifest
from ..gathering import Gathered, gather
from ..query_curves import queries
from ..tables import WORST_CASE
from ..transfer import transfers
from .pictures import Shown, attention_maps, pictures

_MOST_BYTES = 8_000_000  # of pictures on a page
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
        low, high = (self.values.get(name) for name in ("rank_low", "rank_high"))
        if low is None or pd.isna(low):
            return _whole(self.values.get("rank"))
        low, high = int(low), int(high) if high is not None else int(low)
        return str(low) if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Group:
    """Rows that compare: of one dataset, norm, epsilon, examples and attacks.

    tradeoff: their rows of all attacks. gallery: title of a cell -> its pictures.
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
    gallery: Mapping[str, Shown]

    @property
    def title(self) -> str:
        """What its rows have in common."""
        return f"{self.dataset}, {self.norm} at {self.epsilon}, {self.n_examples:,} examples"

    def short_title(self, row: Row) -> str:
        """What charts call a row: the defense alone, where all rows are of one model."""
        models = {one.values["model"] for one in self.rows}
        return row.title if len(models) > 1 else str(row.values["defense"])


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


def content(directories: Sequence[Path], note: Callable[[str], None]) -> Content:
    """Read everything that a page of these run directories shows.

    note: is told what was left out. Raises: RunDirectoryError, as `gather`.
    """
    said: list[str] = []

    def remember(text: str) -> None:
        note(text)
        for one in directories:  # the page goes to others, who have none of these paths
            text = text.replace(str(one), one.resolve().name)
        said.append(private(text))

    found = gather(directories, remember)
    tradeoff, board = found.tradeoff(), found.leaderboard()
    cells = list(found.cells.values())
    tables = {
        "tradeoff": tradeoff,
        "leaderboard": board,
        "queries": queries(cells),
        "transfer": transfers(cells),
        "detection": _detections(found),
    }
    gallery = _gallery(directories, board)
    alike = [name for name in _ALIKE if name in board]
    groups = [
        _group(dict(zip(alike, key, strict=True)), rows, tables, gallery)
        for key, rows in board.groupby(alike, sort=False, dropna=False)
    ]
    manifests = [_provenance(one) for one in directories if (one / "manifest.json").is_file()]
    title = " and ".join(dict.fromkeys(one.title for one in manifests)) or "quintain"
    files = {f"{name}.csv": table for name, table in tables.items() if len(table)}
    return Content(plain(title), groups, manifests, [*_apart(groups), *said], files)


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
    why = f"different {' and '.join(shown)}" if shown else "other examples or other attacks"
    return [f"Rows of different tables below do not compare: {why}."]


def _group(
    key: Mapping[str, Any],
    rows: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    gallery: Mapping[tuple[str, str], Mapping[str, Shown]],
) -> Group:
    pairs = zip(rows["model"].astype(str), rows["defense"].astype(str), strict=True)
    named = dict.fromkeys(pairs)

    def own(table: pd.DataFrame) -> pd.DataFrame:
        """The rows of the same threat and models, from runs whose grid has the same epsilon."""
        found = table[(table["dataset"] == key["dataset"]) & (table["norm"] == key["norm"])]
        names = [name for name in ("model", "defense") if name in found]
        if names:
            titles = zip(*(found[name].astype(str) for name in names), strict=True)
            found = found[np.array([one in named for one in titles], dtype=bool)]
        run = [*names, *(name for name in ("attack", "seed", "n_examples") if name in found)]
        if not run or not len(found):
            return found
        at = (found["epsilon"].astype(str) == str(key["epsilon"])).groupby(
            [found[name] for name in run], dropna=False
        )
        return found[at.transform("any")]

    tradeoff = own(tables["tradeoff"])
    made = [_row(number, values, tradeoff) for number, values in enumerate(rows.to_dict("records"))]
    return Group(
        str(key["dataset"]),
        str(key["norm"]),
        str(key["epsilon"]),
        0 if _missing(key["n_examples"]) else int(key["n_examples"]),
        made,
        tradeoff,
        own(tables["queries"]),
        own(tables["transfer"]),
        own(tables["detection"]),
        {title: each for pair in named for title, each in gallery.get(pair, {}).items()},
    )


def _row(number: int, values: Mapping[Any, Any], tradeoff: pd.DataFrame) -> Row:
    own = tradeoff[
        (tradeoff["model"] == values["model"])
        & (tradeoff["defense"] == values["defense"])
        & (tradeoff["attack"] == WORST_CASE)
    ]
    cost = {}
    if len(own):
        first = own.iloc[0]
        names = ("forward_mean", "backward_mean", "queries_mean", "seconds")
        cost = {name: float(first[name]) for name in names}
    title = f"{values['model']} x {values['defense']}"
    flags = read_column(str(values["flags"]) if values["flags"] else "")
    return Row(number, title, {str(k): v for k, v in values.items()}, flags, cost)


def _detections(found: Gathered) -> pd.DataFrame:
    from ..detection import detections

    return detections(found.cells.values())


def _gallery(
    directories: Sequence[Path], board: pd.DataFrame
) -> dict[tuple[str, str], dict[str, Shown]]:
    """Of each defended model, in the order of the leaderboard, the pictures of its cells."""
    order = [(str(a), str(b)) for a, b in zip(board["model"], board["defense"], strict=True)]
    cells: dict[tuple[str, str], dict[str, Shown]] = {one: {} for one in order}
    bytes_left = _MOST_BYTES
    for directory in directories:
        if not (directory / "examples").is_dir():
            continue
        manifest = read_manifest(directory)
        classes = [str(one) for one in manifest.get("classes", ())]
        entries = [one for one in manifest["cells"] if one["status"] == "done"]
        by_key = {one.about.get("key"): one for one in read_cells(directory)[0]}
        for entry in entries:
            pair, cell = (entry["model"], entry["defense"]), by_key.get(entry.get("key"))
            if pair not in cells or cell is None or bytes_left <= 0:
                continue
            found = list(pictures(directory, entry, cell, classes))
            made = Shown(found, attention_maps(directory, entry) if found else "")
            bytes_left -= made.size
            if found:
                cells[pair][f"{entry['model']} x {entry['defense']} x {entry['attack']}"] = made
    return cells


def _provenance(directory: Path) -> Provenance:
    """What is to be known of a run. The manifest names no home folder, user or computer."""
    about = read_manifest(directory)
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
    return Provenance(str(suite.get("name", directory.name)), shown)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA


def _whole(value: Any) -> str:
    return "" if _missing(value) else str(int(value))


def ascending(epsilons: Sequence[str]) -> list[str]:
    """Epsilons as they were written, the smallest first, each once."""
    return sorted(dict.fromkeys(map(str, epsilons)), key=lambda one: Epsilon.parse(one).value)
