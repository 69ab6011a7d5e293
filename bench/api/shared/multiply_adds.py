"""What a forward pass costs, counted from outside: any module, whatever it calls.

torch's own counter counts on the device, a step lower, and takes seconds to import.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = ("linear", "conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = ("matmul", "__matmul__", "mm", "bmm")


def multiply_adds(module: nn.Module, x: Tensor) -> float:
    """Count those of a forward pass for one row of x: convolutions and matrix products."""
    with MultiplyAdds() as counter, torch.no_grad():
        module(x)
    total: int = counter.total
    return total / len(x)


class MultiplyAdds(TorchFunctionMode):
    """Within, what torch's functions multiply and add is counted.

    total: so far. Of convolutions and products it is what each output sums, padding included.
    """

    total: int = 0

    def __torch_function__(self, function: Any, _: Any, given: Any = (), named: Any = None) -> Any:
        """Run a function, and count it."""
        result = function(*given, **(named or {}))
        name = getattr(function, "__name__", "")
        if name in _CONVOLUTIONS:
            self.total += result.numel() * math.prod(_weight(given, named).shape[1:])
        elif name in _TRANSPOSED:
            self.total += given[0].numel() * math.prod(_weight(given, named).shape[1:])
        elif name in _PRODUCTS:
            self.total += result.numel() * given[0].shape[-1]
        return result


def _weight(given: Any, named: Any) -> Tensor:
    weight: Tensor = given[1] if len(given) > 1 else named["weight"]
    return weight
