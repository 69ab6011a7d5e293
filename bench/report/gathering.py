"""What several run directories hold together, for commands that show it. No torch here.

A result that is kept in a repository has its manifest and tables, but no records: its tables are
then taken as they were written, if they are the ones that the manifest names.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ..api.errors import RunDirectoryError
from ..store.cell import Cell, Lost
from ..store.hashing import hash_bytes
from ..store.run_directory import read_cells, read_manifest
from .detection import detections
from .query_curves import queries
from .tables import both_tables, leaderboard, ranked
from .transfer import transfers


@dataclass
class Gathered:
    """Finished cells once each, those without records, and tables.

    stored: trade-off tables and leaderboards of directories without records. What is made of all
    this is made when it is first asked for: then nothing is added any more.
    """

    cells: dict[tuple[str, ...], Cell] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    stored: list[tuple[pd.DataFrame, pd.DataFrame]] = field(default_factory=list)

    def add(self, cells: Iterable[Cell], lost: Iterable[Lost]) -> None:
        """Add what a run has, and what it lacks."""
        for one in cells:
            self.cells[(*one.defended_model, one.about["attack"], one.about["key"])] = one
        self.lost += lost

    @cached_property
    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The trade-off table, a row for each attack and epsilon, and the leaderboard."""
        tradeoff, board = both_tables(self.cells.values(), self.lost)
        return _joined([tradeoff, *(one for one, _ in self.stored)]), self._ranked(board)

    def leaderboard(self) -> pd.DataFrame:
        """One row for each model x defense, ranked together, where no other table is wanted."""
        return self._ranked(leaderboard(self.cells.values(), self.lost))

    def _ranked(self, board: pd.DataFrame) -> pd.DataFrame:
        return ranked(_joined([board, *(one for _, one in self.stored)])) if self.stored else board

    @cached_property
    def queries(self) -> pd.DataFrame:
        """Success of black-box attacks against queries."""
        return queries(self.cells.values())

    @cached_property
    def transfers(self) -> pd.DataFrame:
        """The transfer matrix."""
        return transfers(self.cells.values())

    @cached_property
    def detections(self) -> pd.DataFrame:
        """How well models with a reject option detect adversarial inputs."""
        return detections(self.cells.values())


def gather(directories: Sequence[Path], note: Callable[[str], None]) -> Gathered:
    """Read run directories. Of several, what is no run, or has no finished cell, is left out.

    note: is told, in a line each, what was left out or taken as it was written.

    Raises: RunDirectoryError when a run is damaged, or nothing is left.
    """
    found = Gathered()
    for one in gather_each(directories, note).values():
        found.cells |= one.cells
        found.lost += one.lost
        found.stored += one.stored
    return found


def gather_each(
    directories: Sequence[Path],
    note: Callable[[str], None],
    known: Mapping[Path, Gathered] | None = None,
) -> dict[Path, Gathered]:
    """The same of each run directory that is not left out, apart. known: what need not be read."""
    made = {}
    for directory in directories:
        if known and directory in known:
            made[directory] = known[directory]
            continue
        if len(directories) > 1 and not (directory / "manifest.json").is_file():
            note(f"{directory} is left out: it is no run directory, it has no manifest.json")
            continue
        about = read_manifest(directory)
        made[directory] = found = Gathered()
        if _is_without_records(directory, about):
            found.stored.append(_stored(directory, about))
            note(f"{directory} holds no records: its tables are taken as they were written")
            continue
        found.add(*read_cells(directory))
        if not found.cells and len(directories) > 1:
            note(f"{directory} has no finished cell")
    if not any(one.cells or one.stored for one in made.values()):
        raise RunDirectoryError(f"no finished cell in {', '.join(map(str, directories))}")
    return made


def _is_without_records(directory: Path, about: dict[str, Any]) -> bool:
    files = [one.get("file") for one in about["cells"] if isinstance(one, dict)]
    named = [one for one in files if isinstance(one, str)]
    return bool(named) and not any((directory / one).exists() for one in named)


def _stored(directory: Path, about: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of a directory without records. Raises: RunDirectoryError."""
    from .stored_tables import read_table

    hashes = about.get("tables")
    made = []
    for name in ("tradeoff.csv", "leaderboard.csv"):
        path = directory / name
        try:
            content = path.read_bytes()
        except OSError:
            raise RunDirectoryError(f"{directory} holds neither records nor {name}") from None
        known = hashes.get(name) if isinstance(hashes, dict) else None
        if hash_bytes(content) != known:
            raise RunDirectoryError(
                f"{path} is not the table that the manifest beside it names, and there are no "
                "records to make it from"
            )
        made.append(read_table(path))
    return made[0], made[1]


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of several; empty ones would blur the types of the others."""
    filled = [one for one in tables if len(one)] or tables[:1]
    return filled[0] if len(filled) == 1 else pd.concat(filled, ignore_index=True)
