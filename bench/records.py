"""Records on disk: one Parquet file a cell, with what the cell was in the file's metadata."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import RunDirectoryError
from .files import write_atomically
from .tables import Cell

_ABOUT, _SEAL = b"quintain", b"quintain.sha256"


def write_cell(path: Path, cell: Cell) -> None:
    """Write a cell, whole or not at all."""
    table = pa.Table.from_pandas(cell.records, preserve_index=False)
    about = json.dumps(cell.about).encode()
    table = table.replace_schema_metadata({_ABOUT: about, _SEAL: _seal(table, about)})
    write_atomically(path, lambda at: pq.write_table(table, at, compression="zstd"))


def read_cell(path: Path) -> Cell:
    """Read a cell.

    Raises: RunDirectoryError when the file is damaged, be it by a bit, or not one of ours.
    """
    try:
        table = pq.read_table(path)
        about = table.schema.metadata[_ABOUT]
        if table.schema.metadata[_SEAL] != _seal(table, about):
            raise ValueError("its checksum is wrong")
        parsed: dict[str, Any] = json.loads(about)
        records: pd.DataFrame = table.to_pandas()
    except Exception as error:  # what Arrow raises on damaged files is not documented
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunDirectoryError(f"records file {path} cannot be read: {reason}") from None
    return Cell(parsed, records)


def _seal(table: pa.Table, about: bytes) -> bytes:
    """Checksum of every value. Parquet has none for its footer, where our metadata is."""
    return hashlib.sha256(about + repr(table.to_pydict()).encode()).hexdigest().encode()
