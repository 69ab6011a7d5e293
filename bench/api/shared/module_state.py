"""Modules of any make: quantised, scripted, exported, lazy, in any number format."""

import hashlib
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import CellError, errors_as

_COMPUTED_IN = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def evaluation_mode(module: nn.Module) -> nn.Module:
    """Put a module in evaluation mode, and return it.

    Exported modules refuse to be put into any mode, and frozen ones have none: these stay in the
    mode that they were exported in, while their neighbours change.

    Raises: CellError when a module of another kind fails.
    """
    with errors_as(CellError, "the model cannot be put in evaluation mode"):
        try:
            return module.eval()
        except (NotImplementedError, AttributeError):
            for one in module.modules():
                if getattr(one, "training", False):
                    one.training = False
            return module


def needs_a_pass(module: nn.Module) -> bool:
    """Whether it has lazy layers, which get their weights when they first see an image."""
    return any(is_lazy(one) for one in (*module.parameters(), *module.buffers()))


def has_plain_state(module: nn.Module) -> bool:
    """Whether its state is tensors alone, of the ordinary kind, as a safetensors file can hold."""
    state = module.state_dict().values()
    return all(
        isinstance(one, Tensor) and one.layout == torch.strided and not one.is_quantized
        for one in state
    )


def state_hash(state: Mapping[str, Any]) -> str:
    """Name a state by its content: a SHA-256 over names, types, shapes and bytes.

    Raises: CellError when a part of it has no content yet, or none that can be read.
    """
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        with errors_as(CellError, f"the model's state {name} cannot be read"):
            _add(digest, name, value)
    return digest.hexdigest()


def _add(digest: Any, name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        _add_tensor(digest, name, value)
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            _add(digest, f"{name}[{number}]", one)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            _add(digest, f"{name}[{key!r}]", one)
    elif isinstance(value, (str, bytes, int, float, bool, torch.dtype)) or value is None:
        digest.update(f"{name}:{value!r};".encode())
    else:
        digest.update(f"{name}:".encode() + pickle.dumps(value, protocol=4))


def _add_tensor(digest: Any, name: str, value: Tensor) -> None:
    value = value.detach().cpu()
    if value.layout != torch.strided:
        value = value.to_dense()
    if value.is_quantized:
        digest.update(f"{name}:{value.qscheme()};".encode())
        _add(digest, name, _scales(value))
        value = value.int_repr()
    digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
    digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)


def _scales(value: Tensor) -> list[Any]:
    """What the integers of a quantised tensor mean."""
    if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return [value.q_scale(), value.q_zero_point()]
    return [
        value.q_per_channel_scales(),
        value.q_per_channel_zero_points(),
        value.q_per_channel_axis(),
    ]


def dtype_of(module: nn.Module) -> torch.dtype:
    """What a module computes in: the one dtype of its weights and buffers.

    A module that mixes several casts by itself, and is given float32. One that has none, too; one
    may say so itself, by an attribute `input_dtype`.
    """
    declared = getattr(module, "input_dtype", None)
    if isinstance(declared, torch.dtype):
        return declared
    tensors = (*module.parameters(), *module.buffers())
    found = {one.dtype for one in tensors if one.dtype in _COMPUTED_IN}
    return found.pop() if len(found) == 1 else torch.float32
