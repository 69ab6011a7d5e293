"""Several runs on one page: rows of the same name in two of them are told apart, not merged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ...store.cell import Cell
from ...store.privacy import private
from ..gathering import Gathered, gather_each

Pair = tuple[str, str]  # model, defense


@dataclass(frozen=True)
class Run:
    """A run directory. name: for people. shown: of a model x defense, how its defense is called."""

    directory: Path
    name: str
    found: Gathered
    shown: Mapping[Pair, str]

    def title(self, model: str, defense: str) -> Pair:
        """What a defended model is called on the page."""
        return model, self.shown.get((model, defense), defense)


def read_runs(
    directories: Sequence[Path],
    note: Callable[[str], None],
    said: list[str],
    known: Mapping[Path, Gathered] | None = None,
) -> list[Run]:
    """Read runs. What several of them call alike gets the name of its run as well.

    note: is told what was left out. said: gets the same, for others' eyes: folders' names without
    their paths. known: what need not be read. Raises: RunDirectoryError, as `gather`.
    """
    every = list({one.resolve(): one for one in directories}.values())
    names = _names(every)

    def remember(text: str) -> None:
        note(text)
        for directory in sorted(every, key=lambda one: -len(str(one))):
            text = text.replace(str(directory), names[directory])
        said.append(private(text))

    each = gather_each(every, remember, known)
    owners: dict[Pair, set[frozenset[str]]] = {}
    for found in each.values():
        for pair, keys in _pairs(found).items():
            owners.setdefault(pair, set()).add(keys)
    return [
        Run(one, names[one], found, _shown(found, names[one], owners))
        for one, found in each.items()
        if found.cells or found.stored
    ]


def joined(runs: Sequence[Run]) -> Gathered:
    """All runs' cells and tables, by the names that the page has for them."""
    if len(runs) == 1:  # it shares its names with no other
        return runs[0].found
    made = Gathered()
    for run in runs:
        made.add(
            (_renamed(cell, run) for cell in run.found.cells.values()),
            (one._replace(defense=run.title(one.model, one.defense)[1]) for one in run.found.lost),
        )
        made.stored += [(_retitled(a, run), _retitled(b, run)) for a, b in run.found.stored]
    return made


def _names(directories: Sequence[Path]) -> dict[Path, str]:
    """The folders' names, with a number where two are alike."""
    made: dict[Path, str] = {}
    for one in directories:
        name = one.resolve().name or "run"
        alike = sum(other.resolve().name == one.resolve().name for other in made)
        made[one] = f"{name} ({alike + 1})" if alike else name
    return made


def _pairs(found: Gathered) -> dict[Pair, frozenset[str]]:
    """Of each model x defense the keys of its cells."""
    keys: dict[Pair, set[str]] = {}
    for cell in found.cells.values():
        pair = (str(cell.about["model"]), str(cell.about["defense"]))
        keys.setdefault(pair, set()).add(str(cell.about["key"]))
    for _, board in found.stored:
        for one in board.to_dict("records"):
            pair = (str(one["model"]), str(one["defense"]))
            keys.setdefault(pair, set()).add(str(one["config_hash"]))
    return {pair: frozenset(one) for pair, one in keys.items()}


def _shown(
    found: Gathered, name: str, owners: Mapping[Pair, set[frozenset[str]]]
) -> dict[Pair, str]:
    return {
        (model, defense): f"{defense} [{name}]"
        for model, defense in _pairs(found)
        if len(owners[model, defense]) > 1
    }


def _renamed(cell: Cell, run: Run) -> Cell:
    model, defense = str(cell.about["model"]), str(cell.about["defense"])
    about = {**cell.about, "defense": run.title(model, defense)[1]}
    source = about.get("transfer_source")
    if source is not None:
        about["transfer_source"] = next(
            (f"{a} x {new}" for (a, old), new in run.shown.items() if f"{a} x {old}" == source),
            source,
        )
    return replace(cell, about=about)


def _retitled(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    pairs = zip(table["model"].astype(str), table["defense"].astype(str), strict=True)
    return table.assign(defense=[run.title(*one)[1] for one in pairs])
