"""What one forward pass costs, counted from outside: any module, whatever it calls."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def multiply_adds(module: nn.Module, x: Tensor) -> float:
    """Count those of a forward pass for one row of x: convolutions and matrix products."""
    with _Counter() as counter, torch.no_grad():
        module(x)
    return float(counter.total) / len(x)


class _Counter(TorchFunctionMode):
    """Counts multiply-adds; torch's own counter takes seconds to import."""

    total = 0.0

    def __torch_function__(self, function: Any, _: Any, given: Any = (), named: Any = None) -> Any:
        result = function(*given, **(named or {}))
        name = getattr(function, "__name__", "")
        if name in ("linear", "conv1d", "conv2d", "conv3d"):
            weight = given[1] if len(given) > 1 else named["weight"]
            self.total += result.numel() * weight[0].numel()
        elif name in ("matmul", "__matmul__", "mm", "bmm"):
            self.total += result.numel() * given[0].shape[-1]
        return result
