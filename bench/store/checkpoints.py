"""Checkpoints: weights in safetensors, with what made them as metadata; and other people's."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..api.errors import BadCheckpoint
from ..api.shared.module_state import state_hash
from ..api.shared.progress_bars import say
from ..api.shared.safe_text import short
from .atomic import write_atomically
from .state_dicts import Misfit, fitted, read_state_dicts


def save_checkpoint(path: Path, module: nn.Module, about: Mapping[str, Any]) -> None:
    """Write weights and buffers, with `about` and their hash as JSON, whole or not at all.

    Raises: OSError when it cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in _state(module)}
    metadata = {"quintain": json.dumps({**about, "weights": state_hash(tensors)}, sort_keys=True)}
    # safetensors would write the file itself, and say of a full disk nothing that can be told apart
    write_atomically(path, lambda at: at.write_bytes(save(tensors, metadata)))


def read_about(path: Path) -> dict[str, Any]:
    """Read what a checkpoint says of itself; empty for files of other makers.

    Raises: BadCheckpoint when it is missing or damaged.
    """
    if not _is_safetensors(path):
        return {}
    with _opened(path) as handle:
        text = (handle.metadata() or {}).get("quintain", "{}")
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"checkpoint {path} cannot be read: {short(str(error))}") from None
    return about if isinstance(about, dict) else {}


def load_checkpoint(path: Path, module: nn.Module) -> dict[str, Any]:
    """Fill a module with a checkpoint's tensors; return what it says of itself.

    A file of torch's own is read without running code in it. Of the state dicts in it the first
    that fits is taken (`state_dicts`), of averaged weights and others the averaged.

    Raises: BadCheckpoint when it is missing, damaged or made for another network.
    """
    about = read_about(path)
    wanted = module.state_dict()
    if _is_safetensors(path):
        with _opened(path) as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        found = [("", tensors)]
        if about.get("weights") not in (None, state_hash(tensors)):
            raise BadCheckpoint(f"checkpoint {path} is damaged: its weights have another hash")
    else:
        found = list(read_state_dicts(path))
    keys, fitting = _fitting(path, found, wanted)
    _check(path, fitting, wanted, theirs="weights" not in about)
    try:
        module.load_state_dict({**wanted, **fitting})
    except Exception as error:  # what a module makes of its own state
        raise BadCheckpoint(f"checkpoint {path} cannot be used: {short(str(error))}") from None
    if len(found) > 1:
        _note(f"quintain: checkpoint {path}: of the weights in it, those under '{keys}' are taken")
    return about


def _is_safetensors(path: Path) -> bool:
    """Whether a file is to be read as safetensors: by its name, or else by how it begins.

    Raises: BadCheckpoint when it is no file, or empty.
    """
    if not path.is_file():
        fault = "is not a file" if path.exists() else "does not exist"
        raise BadCheckpoint(f"checkpoint {path} {fault}")
    if path.suffix.lower() == ".safetensors":
        return True
    try:
        with path.open("rb") as handle:
            return handle.read(9)[8:] == b"{"  # a header's length, then the header, which is JSON
    except OSError as error:
        raise BadCheckpoint(f"checkpoint {path} cannot be read: {error.strerror}") from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError, ValueError) as error:
        raise BadCheckpoint(f"checkpoint {path} cannot be read: {short(str(error))}") from None


def _fitting(
    path: Path, found: Sequence[tuple[str, dict[str, Tensor]]], wanted: Mapping[str, Tensor]
) -> tuple[str, dict[str, Tensor]]:
    """The first state dict whose names are the network's. Raises: BadCheckpoint."""
    misfits: list[Misfit] = []
    for keys, tensors in found:
        try:
            return keys, fitted(tensors, wanted)
        except Misfit as error:
            misfits.append(error)
    nearest = max(misfits, key=lambda one: one.matching)
    raise BadCheckpoint(f"checkpoint {path} is for another network: {nearest}")


def _check(
    path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, theirs: bool
) -> None:
    """Look at every tensor before any is used. theirs: it is not known who wrote them.

    Raises: BadCheckpoint.
    """
    for name, value in sorted(tensors.items()):
        need = wanted[name]
        shown = f"checkpoint {path}: {short(name)}"
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise BadCheckpoint(f"{shown} is not a plain tensor")
        if value.shape != need.shape and need.numel():  # empty: to be given its size
            raise BadCheckpoint(
                f"{shown} has shape {tuple(value.shape)}, the network needs {tuple(need.shape)}"
            )
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise BadCheckpoint(f"{shown} states more numbers than the file holds")
        if _kind(value) != _kind(need):
            raise BadCheckpoint(f"{shown} is {value.dtype}, the network needs {need.dtype}")
        if theirs and value.is_floating_point() and bool(value.isnan().any()):
            raise BadCheckpoint(f"{shown} holds NaN: training had diverged")


def _kind(value: Tensor) -> tuple[bool, bool]:
    """What a type of numbers cannot be turned into another without losing more than digits."""
    return value.is_floating_point(), value.is_complex()


@cache
def _note(text: str) -> None:
    """Say it once: a checkpoint is opened more than once in a run."""
    say(text)


def weights_hash(module: nn.Module) -> str:
    """Name the weights and buffers: a SHA-256 over names, types, shapes and bytes.

    Raises: CellError when a part of the state cannot be read, as of lazy layers before any image.
    """
    return state_hash(module.state_dict())


def _state(module: nn.Module) -> list[tuple[str, Tensor]]:
    return sorted(module.state_dict().items())
