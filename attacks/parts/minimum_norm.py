"""What minimum-norm attacks share: the farthest corner, annealing."""

import math

from torch import Tensor

from ...bench.api.threat import Norm, measure


def farthest(x: Tensor, norm: Norm) -> Tensor:
    """(B,) float64: how far the farthest image of [0, 1] is from each of x (B, C, H, W)."""
    return measure(x.double().maximum(1.0 - x.double()), norm)


def annealed(step: Tensor, steps: int, first: float, last: float) -> Tensor:
    """(B,) float64: from first to last along half a cosine, `step` (B,) of `steps` done."""
    return last + (first - last) * (1.0 + (step.double() * (math.pi / steps)).cos()) / 2.0
