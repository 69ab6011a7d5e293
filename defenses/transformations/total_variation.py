"""Total-variation minimisation: the simplest image that agrees with the pixels that are kept."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...bench.api.rng import noise
from ..training.loop.training_config import at_least, positive, require
from .base import InputTransformation

_FOLLOWED = 10  # steps that a gradient is taken through
_TINY = 1e-12  # keeps the slope of a square root finite
_LARGEST = 8.0  # the squared norm of the discrete gradient in two dimensions is below it


@dataclass(frozen=True, kw_only=True)
class TotalVariation(InputTransformation):
    """Total-variation minimisation: pixels are dropped at random, and the image is made again.

    Source: Guo et al. 2018 (arXiv:1711.00117), section 4.2. The image u minimises
    sum(kept * (u - x)**2) / 2 + weight * TV(u), channel by channel, by the primal-dual method of
    Chambolle & Pock 2011 ("A first-order primal-dual algorithm for convex problems", algorithm 1).
    Without dropping that is the denoising of Rudin, Osher & Fatemi (1992), whose solution scikit-
    image's `denoise_tv_chambolle` finds too. Under attack the derivative is that of the first ten
    steps (BPDA), and with dropping a mean over several draws (EOT).

    weight: how much variation costs. drop: the probability that a pixel is dropped; 0 is plain
    denoising. steps: of the method. base: what trains the network, on images as they are.

    Deviations: the total variation is isotropic, and the distance to the image is squared; the
    paper adds norms of rows and columns to an unsquared distance, and trains on such images too.

    Raises: BadParameter for a value that cannot be used.

    Neighbouring pixels differ less afterwards:
    >>> from quintain.bench.api.examples import linear_example
    >>> from quintain.defenses.transformations.total_variation import TotalVariation
    >>> _, images, _ = linear_example()
    >>> smooth = TotalVariation(weight=0.03, drop=0.0).layer()(images)
    >>> [round(float(x.diff(dim=3).abs().mean()), 3) for x in (images, smooth)]
    [0.11, 0.012]
    """

    weight: float = 0.03
    drop: float = 0.5
    steps: int = 100

    def __post_init__(self) -> None:
        positive("weight", self.weight)
        require("drop", self.drop, 0.0 <= self.drop < 1.0, "at least 0 and below 1")
        at_least("steps", self.steps, 1)

    def layer(self) -> nn.Module:
        """Make the layer that minimises."""
        return LeastVariation(self.weight, self.drop, self.steps)


class LeastVariation(nn.Module):
    """Drops pixels of (B, C, H, W) and minimises the total variation of the rest."""

    differentiable: ClassVar[bool] = False

    def __init__(self, weight: float, drop: float, steps: int) -> None:
        super().__init__()
        self.weight, self.drop, self.steps = weight, drop, steps
        self.stochastic = drop > 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        with torch.no_grad():
            least = least_variation(x, self._kept(x), self.weight, self.steps).clamp(0.0, 1.0)
        return least + 0.0 * x  # a gradient, if a naive attack wants one: zero

    def surrogate(self, x: Tensor) -> Tensor:
        """The first few steps of the minimisation, of the same pixels."""
        return least_variation(x, self._kept(x), self.weight, min(self.steps, _FOLLOWED))

    def _kept(self, x: Tensor) -> Tensor:
        """(B, C, H, W), 0 where a pixel is dropped: the same whenever one question is about it."""
        if not self.stochastic:
            return torch.ones_like(x)
        return (noise(x).uniform(x.shape[1:], "total-variation") >= self.drop).to(x.dtype)


def least_variation(x: Tensor, kept: Tensor, weight: float, steps: int) -> Tensor:
    """(B, C, H, W): argmin over u of sum(kept * (u - x)**2) / 2 + weight * TV(u).

    kept: (B, C, H, W), 0 or 1.
    """
    primal = 1.0 / (_LARGEST * weight) ** 0.5  # so that both variables move alike for their size
    dual = 1.0 / (_LARGEST * primal)
    total, count = (one.sum(dim=(2, 3), keepdim=True) for one in (x * kept, kept))
    mean = total / count.clamp(min=1.0)
    u = ahead = torch.where(kept > 0, x, mean)
    down, across = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(steps):
        down = down + dual * _forward(ahead, 2)
        across = across + dual * _forward(ahead, 3)
        length = (down.square() + across.square() + _TINY).sqrt()
        length = (length / weight).clamp(min=1.0)
        down, across = down / length, across / length
        slope = _backward(down, 2) + _backward(across, 3)
        new = (u + primal * (slope + kept * x)) / (1.0 + primal * kept)
        ahead, u = 2.0 * new - u, new
    return u


def _forward(u: Tensor, axis: int) -> Tensor:
    """Differences to the next pixel, zero at the last."""
    return torch.diff(u, dim=axis, append=u.narrow(axis, -1, 1))


def _backward(p: Tensor, axis: int) -> Tensor:
    """Differences to the pixel before: the negative adjoint of `_forward`."""
    inner = p.narrow(axis, 0, p.shape[axis] - 1)
    edge = torch.zeros_like(p.narrow(axis, 0, 1))
    return torch.cat([inner, edge], dim=axis) - torch.cat([edge, inner], dim=axis)
