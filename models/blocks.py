"""Blocks of residual networks: the layers on the way, the path around them, and how they join.

Sources: He et al. 2015, "Deep residual learning for image recognition", arXiv:1512.03385, figure 5;
He et al. 2016, "Identity mappings in deep residual networks", arXiv:1603.05027, figure 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..bench.api.errors import BadParameter


class Convolution(NamedTuple):
    """One convolution of a block. It has no bias: batch normalisation shifts by itself."""

    kernel: int
    filters: int
    stride: int = 1

    def layer(self, channels: int) -> nn.Conv2d:
        """Make it, for so many channels coming in; its padding keeps the grid at stride 1."""
        return nn.Conv2d(
            channels, self.filters, self.kernel, self.stride, padding=self.kernel // 2, bias=False
        )


Layout = Callable[[int, int], tuple[Convolution, ...]]
"""A block's convolutions, from the channels of its stage and its stride."""


def basic(base: int, stride: int) -> tuple[Convolution, ...]:
    """Two 3x3 convolutions (figure 5, left)."""
    return Convolution(3, base, stride), Convolution(3, base)


def bottleneck(base: int, stride: int) -> tuple[Convolution, ...]:
    """1x1, 3x3 and 1x1 to four times the channels (figure 5, right), the stride in the 3x3."""
    return Convolution(1, base), Convolution(3, base, stride), Convolution(1, 4 * base)


def early_bottleneck(base: int, stride: int) -> tuple[Convolution, ...]:
    """The bottleneck with its stride in the first 1x1, as the paper has it."""
    return Convolution(1, base, stride), Convolution(3, base), Convolution(1, 4 * base)


@dataclass(frozen=True)
class Place:
    """Where a block stands: the channels that come in, its convolutions, and its shortcut.

    projected: where the shape changes, the shortcut is a learned 1x1 convolution (option B) instead
        of one without parameters (option A). first: whether it is the network's first block.
    """

    channels: int
    convolutions: tuple[Convolution, ...]
    projected: bool
    first: bool = False

    @property
    def outputs(self) -> int:
        """Channels that come out."""
        return self.convolutions[-1].filters

    @property
    def stride(self) -> int:
        """How many times smaller the grid becomes."""
        return max(one.stride for one in self.convolutions)

    @property
    def keeps_shape(self) -> bool:
        """Whether as many channels and pixels come out as come in."""
        return self.stride == 1 and self.outputs == self.channels

    def shortcut(self, *, batch_norm: bool) -> nn.Module:
        """Make the path around the block. batch_norm: normalise after the 1x1 convolution."""
        if self.keeps_shape:
            return nn.Identity()
        if not self.projected:
            return ZeroPadding(self.channels, self.outputs, self.stride)
        projection = Convolution(1, self.outputs, self.stride).layer(self.channels)
        return nn.Sequential(projection, *([nn.BatchNorm2d(self.outputs)] if batch_norm else []))


class Block(Protocol):
    """A kind of block: a class like Residual."""

    def __call__(self, place: Place) -> nn.Module:
        """Make one. It takes (B, channels, H, W) to (B, outputs, H / stride, W / stride)."""


class ZeroPadding(nn.Module):
    """Shortcut without parameters: skip pixels, add channels of zeros (option A)."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = outputs - channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, outputs, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class Residual(nn.Module):
    """Convolutions with batch normalisation, added to a shortcut; then ReLU (arXiv:1512.03385)."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.residual = _normalised(place)
        self.shortcut = place.shortcut(batch_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, outputs, H / stride, W / stride)."""
        return F.relu(self.residual(x) + self.shortcut(x))

    def delete(self) -> None:
        """Let the residual branch add nothing from now on: what is left is ReLU(shortcut)."""
        self.residual = Nothing(*self.residual)


class Plain(nn.Module):
    """The same convolutions without a shortcut (arXiv:1512.03385, section 3.3)."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.layers = _normalised(place)
        self.keeps_shape = place.keeps_shape

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, outputs, H / stride, W / stride)."""
        return F.relu(self.layers(x))

    def delete(self) -> None:
        """Let the input pass through from now on, which is never negative.

        Raises: BadParameter where the block changes the shape.
        """
        if not self.keeps_shape:
            raise BadParameter("a plain block that changes the shape has no path around it")
        self.layers = Through(*self.layers)


class PreActivation(nn.Module):
    """Normalisation and ReLU before each convolution; nothing after the sum (arXiv:1603.05027).

    The shortcut starts before the first activation and carries x itself. Where the shape changes it
    starts after it: both branches then read the activated x, as in the authors' code. So it does in
    the network's first block, whose activation is the last layer of the stem (the appendix).

    dropout: probability of dropping each value before the last convolution (arXiv:1605.07146).
    """

    def __init__(self, place: Place, dropout: float = 0.0) -> None:
        super().__init__()
        first, *others = place.convolutions
        channels = first.filters
        layers: list[nn.Module] = [first.layer(place.channels)]
        for one in others:
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            if dropout and one is others[-1]:
                layers.append(nn.Dropout(dropout))
            layers.append(one.layer(channels))
            channels = one.filters
        self.activation = nn.Identity() if place.first else activation(place.channels)
        self.residual = nn.Sequential(*layers)
        self.shortcut = place.shortcut(batch_norm=False)
        self.carries_input = place.keeps_shape

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, outputs, H / stride, W / stride)."""
        active = self.activation(x)
        total: Tensor = self.shortcut(x if self.carries_input else active) + self.residual(active)
        return total

    def delete(self) -> None:
        """Let the residual branch add nothing from now on: what is left is the shortcut."""
        self.residual = Nothing(*self.residual)
        if self.carries_input:
            self.activation = Through(*self.activation.children())


class Nothing(nn.Sequential):
    """A branch that was deleted: its layers stay, as a checkpoint has them, and it adds zero."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> a zero without axes."""
        zero: Tensor = x.new_zeros(())
        return zero


class Through(nn.Sequential):
    """Layers that were deleted: they stay, as a checkpoint has them, and x passes by."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same tensor."""
        return x


def activation(channels: int) -> nn.Sequential:
    """Batch normalisation and ReLU."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


def _normalised(place: Place) -> nn.Sequential:
    """Convolutions with batch normalisation after each and ReLU between them."""
    layers: list[nn.Module] = []
    channels = place.channels
    for one in place.convolutions:
        layers += [one.layer(channels), nn.BatchNorm2d(one.filters), nn.ReLU()]
        channels = one.filters
    return nn.Sequential(*layers[:-1])
