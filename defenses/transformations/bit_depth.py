"""Bit-depth reduction: fewer grey levels, so that small perturbations are rounded away."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..training.loop.training_config import require
from .base import InputTransformation


@dataclass(frozen=True, kw_only=True)
class BitDepth(InputTransformation):
    """Bit-depth reduction: every pixel is rounded to one of 2**bits grey levels.

    Source: Xu et al. 2018 (arXiv:1704.01155), section III-A, with the network trained on images
    of full depth, as there. Under attack the rounding counts as the identity (BPDA).

    bits: 1 to 8; the paper takes 1 for MNIST, 4 or 5 for colour images.
    base: what trains the network.

    Raises: BadParameter for a value that cannot be used.

    With 2 bits there are four levels:
    >>> import torch
    >>> from quintain.defenses.transformations.bit_depth import BitDepth
    >>> pixels = torch.tensor([0.0, 0.1, 0.3, 0.45, 0.6, 0.9]).reshape(1, 1, 1, 6)
    >>> BitDepth(bits=2).layer()(pixels).flatten()
    tensor([0.0000, 0.0000, 0.3333, 0.3333, 0.6667, 1.0000])
    """

    bits: int = 4

    def __post_init__(self) -> None:
        require("bits", self.bits, 1 <= self.bits <= 8, "from 1 to 8")

    def layer(self) -> nn.Module:
        """Make the rounding."""
        return ReducedDepth(self.bits)


class ReducedDepth(nn.Module):
    """Rounds (B, C, H, W) in [0, 1] to 2**bits levels, 0 and 1 among them."""

    differentiable: ClassVar[bool] = False

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.steps = 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        levels: Tensor = (x * self.steps).round() / self.steps
        return levels
