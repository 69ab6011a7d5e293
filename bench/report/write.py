"""A run directory's tables: made from its records, or read where nothing has changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from ..api.plugins.source_digest import installed_digest
from ..store.cell import Lost
from ..store.hashing import hash_bytes, hash_json
from ..store.records import Finished
from ..store.run_directory import RunDirectory
from .gathering import Gathered
from .stored_tables import read_table, whole_counts

Titled = tuple[Finished, Mapping[str, Any]]  # a cell, and what it is called in this run
_NAMES = ("tradeoff.csv", "leaderboard.csv", "queries.csv")
_OPTIONAL = ("transfer.csv", "detection.csv")  # only where there is something for them


@dataclass(frozen=True)
class Tables:
    """The tables of one run. found: the cells that they were made of, unless they were read."""

    tradeoff: pd.DataFrame
    leaderboard: pd.DataFrame
    queries: pd.DataFrame
    found: Gathered | None = None


def write_tables(
    directory: RunDirectory,
    before: Mapping[str, Any],
    cells: Sequence[Titled],
    lost: Sequence[Lost],
) -> tuple[Mapping[str, Any], Tables | None]:
    """Bring the tables' files up to date with the cells; return what to remember, and the tables.

    before: what was to be remembered the last time. The files are made again if a cell, its title,
    those without records or the code that makes them changed, or if a file is missing or altered.

    Raises: RunDirectoryError when a cell cannot be read.
    """
    files = [directory.path / name for name in (*_NAMES, *_OPTIONAL)]
    if not cells:  # older tables would belie the manifest
        for file in files:
            file.unlink(missing_ok=True)
        return {}, None
    made_of = _made_of(cells, lost)
    if before == {"made_of": made_of, **_hashes(files)}:
        try:
            return before, Tables(*map(read_table, files[: len(_NAMES)]))
        except pa.ArrowInvalid:  # written by a version that wrote a column otherwise
            pass
    found = Gathered()
    found.add((one.read().named(titles, one.seconds) for one, titles in cells), lost)
    tradeoff, leaderboard, queries = map(whole_counts, (*found.tables, found.queries))
    made = Tables(tradeoff, leaderboard, queries, found)
    for name, table in zip(_NAMES, (made.tradeoff, made.leaderboard, made.queries), strict=True):
        directory.write_table(name, table)
    for name, table in zip(_OPTIONAL, (found.transfers, found.detections), strict=True):
        if len(table):
            directory.write_table(name, table)
        else:
            (directory.path / name).unlink(missing_ok=True)
    return {"made_of": made_of, **_hashes(files)}, made


def _made_of(cells: Sequence[Titled], lost: Sequence[Lost]) -> str:
    """Name everything that the tables follow from: the cells, and the code that makes tables."""
    code = [metadata.version(one) for one in ("quintain", "pandas")] + [installed_digest(__name__)]
    listed = [[one.key, one.sha256, one.seconds, list(titles.values())] for one, titles in cells]
    return hash_json([code, listed, lost])


def _hashes(files: Sequence[Path]) -> dict[str, str]:
    return {one.name: hash_bytes(one.read_bytes()) for one in files if one.is_file()}
