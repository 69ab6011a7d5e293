"""A run directory's tables: made from its records, or read where nothing has changed."""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from . import certified, detection, queries, spreadsheet, statistics, tables, transfers
from .directory import RunDirectory
from .queries import QUERIES_COLUMNS
from .spreadsheet import restored
from .survey import Finished
from .tables import LEADERBOARD_COLUMNS, TRADEOFF_COLUMNS, Cell, leaderboard, tradeoff

Titled = tuple[Finished, Mapping[str, Any]]  # a cell, and what it is called in this run
_NAMES = ("tradeoff.csv", "leaderboard.csv", "queries.csv")
_OPTIONAL = {  # only where there is something for them
    "transfer.csv": transfers.transfers,
    "detection.csv": detection.detections,
}
_TEXTS = ["dataset", "model", "defense", "attack", "access", "norm", "epsilon", "flags"]
_TEXTS += ["device", "dtype", "attacks", "config_hash", "weights_hash", "search"]
_COUNTS = ["rank", "n_examples", "verified", "seed", "setup_queries", "parameters"]
_COUNTS += ["query_budget", "queries", "n_attacked", "successes"]
_TYPES = {
    **dict.fromkeys(TRADEOFF_COLUMNS + LEADERBOARD_COLUMNS + QUERIES_COLUMNS, pa.float64()),
    **dict.fromkeys(_TEXTS, pa.string()),
    **dict.fromkeys(_COUNTS, pa.int64()),
}


@dataclass(frozen=True)
class Standings:
    """The tables of one run."""

    tradeoff: pd.DataFrame
    leaderboard: pd.DataFrame
    queries: pd.DataFrame


def up_to_date(
    directory: RunDirectory,
    before: Mapping[str, Any],
    cells: Sequence[Titled],
    failed: Sequence[tuple[str, ...]],
) -> tuple[Mapping[str, Any], Standings | None]:
    """Bring the tables' files up to date with the cells; return what to remember, and the tables.

    before: what was to be remembered the last time. The files are made anew if a cell, its title,
    the failed ones or the code that makes them changed, or if a file is missing or altered.

    Raises: RunDirectoryError when a cell cannot be read.
    """
    files = [directory.path / name for name in (*_NAMES, *_OPTIONAL)]
    if not cells:  # older tables would belie the manifest
        for file in files:
            file.unlink(missing_ok=True)
        return {}, None
    made_of = _made_of(cells, failed)
    if before == {"made_of": made_of, **_hashes(files)}:
        try:
            return before, Standings(*map(read_table, files[: len(_NAMES)]))
        except pa.ArrowInvalid:  # written by a version that wrote a column otherwise
            pass
    contents = [one.read() for one, _ in cells]
    named = [
        Cell({**cell.about, **titles}, cell.records)
        for cell, (_, titles) in zip(contents, cells, strict=True)
    ]
    tables_made = tradeoff(named, failed), leaderboard(named, failed), queries.queries(named)
    made = Standings(*map(_whole_counts, tables_made))
    for name, table in zip(_NAMES, (made.tradeoff, made.leaderboard, made.queries), strict=True):
        directory.write_table(name, table)
    for name, make in _OPTIONAL.items():
        table = make(named)
        if len(table):
            directory.write_table(name, table)
        else:
            (directory.path / name).unlink(missing_ok=True)
    return {"made_of": made_of, **_hashes(files)}, made


def read_table(path: Path) -> pd.DataFrame:
    """Read a table as it was when it was written.

    No title is taken for a number or for nothing, and none keeps what makes it inert in the file.
    """
    table: pd.DataFrame = csv.read_csv(
        path,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=_TYPES, null_values=[""], strings_can_be_null=False
        ),
    ).to_pandas()
    return _whole_counts(restored(table))


def _whole_counts(table: pd.DataFrame) -> pd.DataFrame:
    """The same table, whose columns of counts are whole numbers also where some are missing.

    Otherwise pandas makes floats of them, and writes 20 as 20.0.
    """
    gaps = [name for name in _COUNTS if name in table and table[name].isna().any()]
    return table.astype(dict.fromkeys(gaps, "Int64"))


def _made_of(cells: Sequence[Titled], failed: Sequence[tuple[str, ...]]) -> str:
    """Name everything that the tables follow from."""
    modules = tables, certified, queries, transfers, detection, statistics, spreadsheet
    code = [inspect.getsource(one) for one in modules]
    listed = [[one.key, one.sha256, list(titles.values())] for one, titles in cells]
    return _sha256(json.dumps([code, pd.__version__, listed, failed]).encode())


def _hashes(files: Sequence[Path]) -> dict[str, str]:
    return {one.name: _sha256(one.read_bytes()) for one in files if one.is_file()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
