"""The moments of Adam, for examples each at its own iteration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...bench.api.threat import per_example

_DECAYS = 0.9, 0.999
_FLOOR = 1e-8


@dataclass
class Moments:
    """Running means of the gradient and of its square, (B, ...)."""

    first: Tensor
    second: Tensor

    @classmethod
    def zero(cls, like: Tensor) -> "Moments":
        """Those before the first step."""
        return cls(torch.zeros_like(like), torch.zeros_like(like))

    def forgotten(self, rows: Tensor) -> "Moments":
        """Zero in some rows, (B,) bool."""
        kept = per_example(~rows, self.first)
        return Moments(self.first * kept, self.second * kept)

    def taken_in(self, gradient: Tensor, iteration: Tensor) -> tuple["Moments", Tensor]:
        """The new moments, and the step to take against, of length about 1 in each coordinate.

        Source: Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1. iteration: (B,), steps before.
        """
        first = _DECAYS[0] * self.first + (1.0 - _DECAYS[0]) * gradient
        second = _DECAYS[1] * self.second + (1.0 - _DECAYS[1]) * gradient.square()
        unbiased = [
            value / per_example(1.0 - decay ** (iteration.double() + 1.0), value).to(value.dtype)
            for value, decay in ((first, _DECAYS[0]), (second, _DECAYS[1]))
        ]
        return Moments(first, second), unbiased[0] / (unbiased[1].sqrt() + _FLOOR)
