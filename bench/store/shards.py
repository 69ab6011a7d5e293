"""Shards: what was shown of some examples of a cell, as a file until the cell is whole."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from ..api.errors import RunDirectoryError, reason
from .atomic import write_atomically

_ABOUT, _SEAL = "quintain", "quintain.sha256"


def shard_file(records: Path, start: int, stop: int) -> Path:
    """Where the examples from start up to stop of a cell are kept, by the file of its records."""
    return shard_folder(records) / f"{start}-{stop}.safetensors"


def shard_folder(records: Path) -> Path:
    """Where the shards of a cell are, by the file of its records."""
    return records.parent.parent / "shards" / records.stem


def adversarials_file(shard: Path) -> Path:
    """Where the adversarial examples of a shard are, where they are saved."""
    return shard.with_suffix(".adversarials")


def write_shard(path: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a shard, whole or not at all. about: JSON."""
    said = json.dumps(about)
    laid_out = {name: np.ascontiguousarray(one) for name, one in arrays.items()}
    content = save(laid_out, {_ABOUT: said, _SEAL: _seal(said, laid_out)})
    write_atomically(path, lambda at: at.write_bytes(content))


def read_about(path: Path) -> dict[str, Any]:
    """What a shard is about; nothing where there is none, or it is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            about: dict[str, Any] = json.loads(file.metadata()[_ABOUT])
            return about
    except Exception:  # what the library raises on damaged files is not documented
        return {}


def read_shard(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a shard: what it is about, and its arrays.

    Raises: RunDirectoryError when it is damaged, be it by a bit.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata[_SEAL] != _seal(metadata[_ABOUT], arrays):
            raise ValueError("its checksum is wrong")
        return json.loads(metadata[_ABOUT]), arrays
    except Exception as error:  # what the library raises on damaged files is not documented
        why = reason(error)
        raise RunDirectoryError(f"shard {path} cannot be read: {why}; delete it") from None


def _seal(about: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    seal = hashlib.sha256(about.encode())
    for name in sorted(arrays):
        seal.update(repr((name, arrays[name].shape, arrays[name].dtype.str)).encode())
        seal.update(arrays[name].tobytes())
    return seal.hexdigest()
