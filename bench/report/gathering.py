"""What several run directories hold together, for commands that show it. No torch here.

A result that is kept in a repository has its manifest and tables, but no records: its tables are
then taken as they were written, if they are the ones that the manifest names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..api.errors import RunDirectoryError
from ..store.cell import Cell, Lost
from ..store.hashing import hash_bytes
from ..store.run_directory import read_cells, read_manifest
from .tables import leaderboard, ranked, tradeoff


@dataclass
class Gathered:
    """Finished cells once each, those without records, and tables.

    stored: trade-off tables and leaderboards of directories without records.
    """

    cells: dict[tuple[str, ...], Cell] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    stored: list[tuple[pd.DataFrame, pd.DataFrame]] = field(default_factory=list)

    def tradeoff(self) -> pd.DataFrame:
        """One row for each model x defense x attack x epsilon."""
        made = tradeoff(self.cells.values(), self.lost)
        return _joined([made, *(one for one, _ in self.stored)])

    def leaderboard(self) -> pd.DataFrame:
        """One row for each model x defense, ranked together."""
        made = leaderboard(self.cells.values(), self.lost)
        return ranked(_joined([made, *(one for _, one in self.stored)]))


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


def gather_each(directories: Sequence[Path], note: Callable[[str], None]) -> dict[Path, Gathered]:
    """The same of each run directory that is not left out, apart."""
    made = {}
    for directory in directories:
        if len(directories) > 1 and not (directory / "manifest.json").is_file():
            note(f"{directory} is left out: it is no run directory, it has no manifest.json")
            continue
        about = read_manifest(directory)
        made[directory] = found = Gathered()
        if _is_without_records(directory, about):
            found.stored.append(_stored(directory, about))
            note(f"{directory} holds no records: its tables are taken as they were written")
            continue
        done, found.lost = read_cells(directory)
        if not done and len(directories) > 1:
            note(f"{directory} has no finished cell")
        for cell in done:
            found.cells[(*cell.defended_model, cell.about["attack"], cell.about["key"])] = cell
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
