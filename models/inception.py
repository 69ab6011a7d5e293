"""Inception modules: convolutions of three sizes and a pooling side by side.

Source: Szegedy et al. 2014, "Going deeper with convolutions", arXiv:1409.4842, figure 2.
"""

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .layers import scaled


class Filters(NamedTuple):
    """How many filters each branch of an Inception module has: a row of table 1."""

    one: int
    reduce_three: int
    three: int
    reduce_five: int
    five: int
    pool: int

    def scaled(self, width: float) -> "Filters":
        """Multiply each number by the width."""
        return Filters(*(scaled(count, width) for count in self))


def convolution(
    channels: int, filters: int, kernel: int, *, stride: int = 1, batch_norm: bool
) -> nn.Sequential:
    """Convolution with zero padding, batch normalisation if asked for, and ReLU.

    Batch normalisation has a shift of its own, so that the convolution then needs no bias.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(
            channels, filters, kernel, stride=stride, padding=kernel // 2, bias=not batch_norm
        )
    )
    if batch_norm:
        layers["norm"] = nn.BatchNorm2d(filters, eps=1e-3)
    layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


class NaiveInception(nn.Module):
    """Inception module without reductions (figure 2a): 1x1, 3x3, 5x5 and pooling side by side.

    The pooling branch passes every channel on, so that (B, channels, H, W) becomes
    (B, one + three + five + channels, H, W): it grows from module to module.

    filters: of which the reductions and the pooling branch are not used.
    """

    def __init__(self, channels: int, filters: Filters, *, batch_norm: bool = False) -> None:
        super().__init__()
        block = partial(convolution, channels, batch_norm=batch_norm)
        self.one = block(filters.one, 1)
        self.three = block(filters.three, 3)
        self.five = block(filters.five, 5)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.outputs = filters.one + filters.three + filters.five + channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, outputs, H, W)."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


class Inception(nn.Module):
    """Inception module with 1x1 reductions before 3x3 and 5x5, and after pooling (figure 2b)."""

    def __init__(self, channels: int, filters: Filters, *, batch_norm: bool = False) -> None:
        super().__init__()
        block = partial(convolution, batch_norm=batch_norm)
        self.one = block(channels, filters.one, 1)
        self.three = nn.Sequential(
            block(channels, filters.reduce_three, 1),
            block(filters.reduce_three, filters.three, 3),
        )
        self.five = nn.Sequential(
            block(channels, filters.reduce_five, 1),
            block(filters.reduce_five, filters.five, 5),
        )
        self.pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), block(channels, filters.pool, 1)
        )
        self.outputs = filters.one + filters.three + filters.five + filters.pool

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, outputs, H, W)."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)
