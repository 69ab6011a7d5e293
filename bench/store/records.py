"""Records on disk: one Parquet file a cell, with what the cell was in the file's metadata."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..api.errors import RunDirectoryError, reason
from ..api.flags import read_flags, stored
from ..api.shared.file_checks import check_regular
from ..api.shared.outcome_columns import RECORDS
from .atomic import write_atomically
from .cell import Cell
from .hashing import hash_bytes, hash_file
from .old_names import renamed

_ABOUT, _SEAL = b"quintain", b"quintain.sha256"
_BLOCK = 1024  # rows held as Python objects at once


def examples_file(records: Path) -> Path:
    """Where a few adversarial examples of a cell are kept, by the file of its records."""
    return records.parent.parent / "examples" / f"{records.stem}.safetensors"


def write_cell(path: Path, cell: Cell) -> str:
    """Write a cell, whole or not at all; return the SHA-256 of the file."""
    table = _as_table(cell.records)
    about = json.dumps(_with_flags(cell.about, stored)).encode()
    table = table.replace_schema_metadata({_ABOUT: about, _SEAL: _seal(table, about)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    content = buffer.getvalue()
    write_atomically(path, lambda at: at.write_bytes(content))
    return hash_bytes(content)


def _as_table(records: pd.DataFrame) -> pa.Table:
    """The records, each column in its declared type, whatever its values happen to be."""
    schema = pa.Schema.from_pandas(records, preserve_index=False)
    for column in RECORDS:
        at = schema.get_field_index(column.name)
        if at >= 0:
            kind = pa.type_for_alias(column.recorded_dtype)
            kind = pa.list_(kind) if column.is_list else kind
            schema = schema.set(at, pa.field(column.name, kind))
    return pa.Table.from_pandas(records, schema, preserve_index=False)


def read_cell(path: Path, sha256: str | None = None) -> Cell:
    """Read a cell.

    sha256: of the whole file, where it is known: then that is checked, and not every value.

    Raises: RunDirectoryError when the file is damaged, be it by a bit, or not one of ours.
    """
    try:
        check_regular(path)
        content = path.read_bytes()
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        about = table.schema.metadata[_ABOUT]
        if sha256 is None:
            whole = table.schema.metadata[_SEAL] == _seal(table, about)
        else:
            whole = hash_bytes(content) == sha256
        if not whole:
            raise ValueError("its checksum is wrong")
        parsed: dict[str, Any] = json.loads(about)
        parsed, table = renamed(parsed, table)
        parsed = _with_flags(parsed, read_flags)
        records = table.to_pandas(use_threads=False, types_mapper=_in_memory)
    except Exception as error:  # what Arrow raises on damaged files is not documented
        raise RunDirectoryError(f"records file {path} cannot be read: {reason(error)}") from None
    return Cell(parsed, records)


def _in_memory(kind: pa.DataType) -> pd.ArrowDtype | None:
    """How a column is kept: lists as Arrow has them, where objects would take ten times as much."""
    return pd.ArrowDtype(kind) if pa.types.is_list(kind) else None


def _with_flags(about: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """What a cell says of itself, with its flags as values or as they are stored."""
    return {**about, "flags": change(about["flags"])} if "flags" in about else about


def _seal(table: pa.Table, about: bytes) -> bytes:
    """Checksum of every value. Parquet has none for its footer, where our metadata is."""
    seal = hashlib.sha256(about)
    for start in range(0, len(table), _BLOCK):
        seal.update(repr(table.slice(start, _BLOCK).to_pydict()).encode())
    return seal.hexdigest().encode()


@dataclass(frozen=True)
class Finished:
    """A finished cell. sha256: of its file.

    weights: hashes of the weights that it was made with: its network's, and that of the network
    whose gradients it borrows. files: those that code of the user's read: path -> SHA-256.
    adversarials: the hash of the file of its adversarial examples, if they were saved. seconds: how
    long it took, which is no part of the records; None where nobody remembers. probe: its network's
    answers to fixed images, where the records were read to find the cell. fresh: made by this run.
    computed_on: the hardware of the worker that wrote it, where somebody remembers.
    """

    path: Path
    key: str
    sha256: str
    weights: tuple[str, ...]
    files: Mapping[str, str]
    adversarials: str | None
    seconds: float | None = None
    probe: Sequence[Sequence[float]] | None = None
    fresh: bool = False
    computed_on: Mapping[str, Any] | None = None

    @property
    def saved(self) -> bool:
        """Whether its adversarial examples are there as they were saved."""
        file = self.path.with_suffix(".safetensors")
        return file.is_file() and hash_file(file) == self.adversarials

    def read(self) -> Cell:
        """Read its content. Raises: RunDirectoryError."""
        return read_cell(self.path, self.sha256)
