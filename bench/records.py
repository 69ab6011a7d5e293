"""Records on disk: one Parquet file a cell, with what the cell was in the file's metadata."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import RunDirectoryError
from .files import write_atomically
from .tables import Cell

_ABOUT = b"quintain"


def write_cell(path: Path, cell: Cell) -> None:
    """Write a cell, whole or not at all."""
    table = pa.Table.from_pandas(cell.records, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), _ABOUT: json.dumps(cell.about).encode()}
    table = table.replace_schema_metadata(metadata)
    write_atomically(path, lambda at: pq.write_table(table, at, compression="zstd"))


def read_cell(path: Path) -> Cell:
    """Read a cell.

    Raises: RunDirectoryError when the file is damaged or not one of ours.
    """
    try:
        table = pq.read_table(path)
        about: dict[str, Any] = json.loads(table.schema.metadata[_ABOUT])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(f"records file {path} cannot be read: {error}") from None
    records: pd.DataFrame = table.to_pandas()
    return Cell(about, records)
