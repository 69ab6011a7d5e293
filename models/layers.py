"""Parts that every network here is made of: input scaling, weights, widths and size checks."""

import math
from collections.abc import Iterable
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..bench.api.defense import InputSpec
from ..bench.api.errors import BadParameter, check_choice

Stem = Literal["auto", "imagenet", "small"]

SMALLEST_INPUT = 16
AUTO_IMAGENET_FROM = 64


class Normalise(nn.Module):
    """Subtract each channel's mean and divide by its spread, so that a network takes [0, 1] inputs.

    mean, std: one value for each channel. They are buffers: a checkpoint carries them.

    Raises: BadParameter when their numbers differ, or a spread is not positive and finite.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Iterable[float], std: Iterable[float]) -> None:
        super().__init__()
        means, stds = tuple(mean), tuple(std)
        if len(means) != len(stds):
            raise BadParameter(f"{len(means)} channel means but {len(stds)} channel spreads")
        for one in stds:
            if not 0.0 < one < math.inf:
                raise BadParameter(f"channel spread {one} must be positive and finite")
        self.register_buffer("mean", torch.tensor(means).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(stds).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape, of zero mean and unit spread."""
        return (x - self.mean) / self.std


class LocalResponseNorm(nn.Module):
    """AlexNet's response normalisation (Krizhevsky 2012, section 3.3).

    b = a / (k + alpha * sum of a^2 over n neighbouring channels)^beta, with the paper's values.
    torch.nn.LocalResponseNorm multiplies alpha by the mean instead of the sum, so that its alpha is
    n times this one. It also takes three times as long on a CPU.
    """

    n, k, alpha, beta = 5, 2.0, 1e-4, 0.75

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; channels beyond the first and last count as zero."""
        channels, reach = x.shape[1], self.n // 2
        squares = F.pad(x * x, (0, 0, 0, 0, reach, reach))
        total = squares[:, :channels]
        for shift in range(1, self.n):
            total = total + squares[:, shift : shift + channels]
        return x * (self.k + self.alpha * total).pow(-self.beta)


def input_layer(inputs: InputSpec) -> Normalise:
    """Make the first layer of a network for these inputs.

    Raises: BadParameter when the statistics do not fit the channels.
    """
    channels = inputs.shape[0]
    if len(inputs.mean) != channels:
        raise BadParameter(f"{len(inputs.mean)} channel means for images of {channels} channels")
    return Normalise(inputs.mean, inputs.std)


def choose_stem(
    network: str, inputs: InputSpec, stem: Stem, *, imagenet_from: int
) -> Literal["imagenet", "small"]:
    """Settle which first layers a network gets, and refuse images too small for them.

    "imagenet" is the paper's, for photographs of about 224 pixels; "small" has smaller kernels and
    strides; "auto" takes the small one when a side is below 64 pixels.
    imagenet_from: the smallest side that the network's imagenet stem can take.

    Raises: BadParameter for an unknown stem or images that are too small.
    """
    check_choice(f"{network}: stem", stem, get_args(Stem))
    side = min(inputs.shape[1:])
    if side < SMALLEST_INPUT:
        height, width = inputs.shape[1:]
        raise BadParameter(
            f"{network}: images of {height}x{width} are too small; "
            f"it takes {SMALLEST_INPUT}x{SMALLEST_INPUT} or larger"
        )
    if stem == "auto":
        return "imagenet" if side >= AUTO_IMAGENET_FROM else "small"
    if stem == "imagenet" and side < imagenet_from:
        height, width = inputs.shape[1:]
        raise BadParameter(
            f"{network}: images of {height}x{width} are too small for stem 'imagenet', which takes "
            f"{imagenet_from}x{imagenet_from} or larger; use stem 'small'"
        )
    return stem


def scaled(channels: int, width: float, *, multiple: int = 1) -> int:
    """Scale a paper's number of channels by `width`: the nearest multiple, never zero.

    Raises: BadParameter when width is not positive and finite.
    """
    if not 0.0 < width < math.inf:
        raise BadParameter(f"width {width} must be positive and finite; the paper's network is 1.0")
    return max(1, round(channels * width / multiple)) * multiple


def dropout_layer(probability: float) -> nn.Dropout:
    """Drop each value with this probability in training mode.

    Raises: BadParameter when it is not in [0, 1).
    """
    if not 0.0 <= probability < 1.0:
        raise BadParameter(f"dropout {probability} must be at least 0 and below 1")
    return nn.Dropout(probability)


def initialise(network: nn.Module, heads: Iterable[nn.Linear]) -> None:
    """Draw fresh weights: He's (arXiv:1502.01852, fan-in) before ReLUs, zero biases.

    heads: the layers that give logits, which no ReLU follows. They start at a spread of 0.01, so
    that the first predictions are nearly uniform.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for head in heads:
        nn.init.normal_(head.weight, std=0.01)
