"""What minimum-norm attacks share: the farthest corner, a direction's unit, annealing."""

import math

from torch import Tensor

from ...bench.api.threat import Norm, measure, per_example

_TINY = 1e-30


def farthest(x: Tensor, norm: Norm) -> Tensor:
    """(B,) float64: how far the farthest image of [0, 1] is from each of x (B, C, H, W)."""
    return measure(x.double().maximum(1.0 - x.double()), norm)


def unit(direction: Tensor) -> Tensor:
    """(B, C, H, W) over its Euclidean length; zero where it is zero."""
    largest = direction.abs().flatten(1).amax(dim=1).clamp(min=_TINY)
    scaled = direction / per_example(largest, direction)  # the squares of 1e-30 would vanish
    length = scaled.flatten(1).norm(dim=1).clamp(min=_TINY)
    return scaled / per_example(length, direction)


def annealed(step: Tensor, steps: int, first: float, last: float) -> Tensor:
    """(B,) float64: from first to last along half a cosine, `step` (B,) of `steps` done."""
    return last + (first - last) * (1.0 + (step.double() * (math.pi / steps)).cos()) / 2.0
