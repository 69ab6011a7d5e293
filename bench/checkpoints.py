"""Checkpoints: weights in safetensors, with what made them as metadata; torch's own as guests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .errors import BadCheckpoint
from .files import write_atomically
from .modules import state_hash

_PICKLED = (".pt", ".pth")
_INSIDE = ("state_dict", "model")
_PARALLEL = "module."


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
    if not path.is_file():
        raise BadCheckpoint(f"checkpoint {path} does not exist")
    if path.suffix in _PICKLED:
        return {}
    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = handle.metadata() or {}
        about = json.loads(metadata.get("quintain", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise BadCheckpoint(f"checkpoint {path} cannot be read: {error}") from None
    return about if isinstance(about, dict) else {}


def load_checkpoint(path: Path, module: nn.Module) -> dict[str, Any]:
    """Fill a module with a checkpoint's tensors; return what it says of itself.

    A file of torch's own (.pt, .pth) is read without running code in it: a state dict, or one
    under `state_dict` or `model`.

    Raises: BadCheckpoint when it is missing, damaged or made for another network.
    """
    about = read_about(path)
    wanted = dict(_state(module))
    if path.suffix in _PICKLED:
        tensors = _renamed(_unpickled(path), wanted)
    else:
        try:
            with safe_open(str(path), framework="pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise BadCheckpoint(f"checkpoint {path} cannot be read: {error}") from None
    for name in sorted(wanted.keys() ^ tensors.keys()):
        fault = "lacks" if name in wanted else "is for another network: it also holds"
        raise BadCheckpoint(f"checkpoint {path} {fault} {name}")
    for name, value in wanted.items():
        if value.shape != tensors[name].shape and value.numel():  # empty: to be given its size
            raise BadCheckpoint(
                f"checkpoint {path}: {name} has shape {tuple(tensors[name].shape)}, "
                f"the network needs {tuple(value.shape)}"
            )
    if about.get("weights") not in (None, state_hash(tensors)):
        raise BadCheckpoint(f"checkpoint {path} is damaged: its weights have another hash")
    module.load_state_dict(tensors)
    return about


def _unpickled(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of torch's own. Raises: BadCheckpoint."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind, or one that would run code
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise BadCheckpoint(f"checkpoint {path} cannot be read: {reason}") from None
    for name in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    held = found.values() if isinstance(found, Mapping) else [None]
    if not all(isinstance(one, torch.Tensor) for one in held):
        raise BadCheckpoint(
            f"checkpoint {path} holds no state dict, at the top or under {' or '.join(_INSIDE)}"
        )
    return dict(found)


def _renamed(
    tensors: dict[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The tensors without the prefix that a parallel wrapper gave all of them, if it did.

    Of a network that was wrapped to take images in [0, 1], `network` and `normalise`, the inner
    one's alone will do.
    """
    if all(name.startswith(_PARALLEL) for name in tensors):
        tensors = {name.removeprefix(_PARALLEL): value for name, value in tensors.items()}
    inner = {f"network.{name}": value for name, value in tensors.items()}
    own = {name: value for name, value in wanted.items() if name.startswith("normalise.")}
    return {**inner, **own} if {*inner, *own} == set(wanted) else tensors


def weights_hash(module: nn.Module) -> str:
    """Name the weights and buffers: a SHA-256 over names, types, shapes and bytes.

    Raises: CellError when a part of the state cannot be read, as of lazy layers before any image.
    """
    return state_hash(module.state_dict())


def _state(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return sorted(module.state_dict().items())
