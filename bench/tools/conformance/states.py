"""Small looks at states, models and tensors, for the watch."""

from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...api.attack import Problem


def state_fault(state: Any, count: int) -> str:
    """Say why the engine could not carry this state from step to step, or nothing."""
    if not is_dataclass(state) or not hasattr(state, "x_adv"):
        return f"the state must be a dataclass with x_adv, not {type(state).__name__}"
    for name, value in _leaves(state, "state"):
        if not isinstance(value, Tensor):
            return f"{name} must be a tensor, not {type(value).__name__}"
        if value.dim() == 0 or len(value) != count:
            return f"{name} has shape {tuple(value.shape)}, expected a leading axis of {count}"
    return ""


def state_tensors(state: Any) -> dict[str, Tensor]:
    """The tensors of a state, nested ones included, by name; none of no state."""
    if not is_dataclass(state):
        return {}
    return {name: value for name, value in _leaves(state, "state") if isinstance(value, Tensor)}


def _leaves(value: Any, name: str) -> list[tuple[str, Any]]:
    if not is_dataclass(value):
        return [(name, value)]
    parts = [_leaves(getattr(value, one.name), f"{name}.{one.name}") for one in fields(value)]
    return [leaf for part in parts for leaf in part]


def torch_switches() -> dict[str, Any]:
    """Switches of the process that an attack must put back when it has changed them."""
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "the default dtype": torch.get_default_dtype(),
        "the default device": str(torch.get_default_device()),
        "deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "the precision of matrix products": torch.get_float32_matmul_precision(),
        "the number of threads": torch.get_num_threads(),
    }


def model_state(module: nn.Module) -> list[tuple[str, Any]]:
    """Everything that an attack must leave alone: modes, requires_grad, weights and buffers."""
    return [
        *(
            (f"the mode of {name or 'the model'}", one.training)
            for name, one in module.named_modules()
        ),
        *(
            (f"requires_grad of {name}", one.requires_grad)
            for name, one in module.named_parameters()
        ),
        *((f"the model's {name}", one.clone()) for name, one in module.state_dict().items()),
    ]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, NaN where the other has NaN."""
    if one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def raw(point: Tensor) -> bytes:
    """The bytes of a tensor's values."""
    return point.detach().cpu().contiguous().numpy().tobytes()


def described(value: Any) -> str:
    """A tensor's type and shape, or the type of what is no tensor."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


def place(problem: Problem, row: int, done: int) -> str:
    """Say which example it was, at which epsilon, and when. done: 0 at the start."""
    when = f"after step {int(problem.step[row]) + 1}" if done else "at the start"
    return (
        f"example {int(problem.draws.example[row])}, "
        f"epsilon {float(problem.epsilon[row]):g}, {when}"
    )
