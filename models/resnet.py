"""ResNet: layers that learn what to add to their input.

Source: He et al. 2015, "Deep residual learning for image recognition", arXiv:1512.03385: table 1
for the ImageNet networks, section 4.2 for the CIFAR-10 family, figure 5 for the blocks.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..bench.errors import BadParameter
from ..bench.protocols import InputSpec
from .layers import Stem, choose_stem, initialise, input_layer, scaled

Shortcut = Callable[[int, int, int], nn.Module]
"""Makes the path around a block from (input channels, output channels, stride)."""


class ZeroPadding(nn.Module):
    """Shortcut without parameters: skip pixels, add channels of zeros (option A)."""

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = outputs - channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, outputs, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def projection(channels: int, outputs: int, stride: int) -> nn.Module:
    """Shortcut by a learned 1x1 convolution (option B)."""
    return nn.Sequential(
        nn.Conv2d(channels, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (figure 5, left).

    base: channels of the stage, which come out multiplied by `expansion`.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, channels: int, base: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, base, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(base),
            nn.ReLU(),
            nn.Conv2d(base, base, 3, padding=1, bias=False),
            nn.BatchNorm2d(base),
        )
        self.shortcut = _around(channels, base, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, base, H / stride, W / stride)."""
        return F.relu(self.residual(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (figure 5, right).

    base: channels inside, which come out multiplied by `expansion`.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, channels: int, base: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        outputs = base * self.expansion
        self.residual = nn.Sequential(
            nn.Conv2d(channels, base, 1, bias=False),
            nn.BatchNorm2d(base),
            nn.ReLU(),
            nn.Conv2d(base, base, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(base),
            nn.ReLU(),
            nn.Conv2d(base, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = _around(channels, outputs, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 4 base, H / stride, W / stride)."""
        return F.relu(self.residual(x) + self.shortcut(x))


class Block(Protocol):
    """A kind of block: a class like BasicBlock."""

    @property
    def expansion(self) -> int:
        """How many times the stage's channels come out of it."""

    def __call__(self, channels: int, base: int, stride: int, shortcut: Shortcut) -> nn.Module:
        """Make one."""


@dataclass(frozen=True)
class Plan:
    """What a depth means: the block, how many of them in each stage, and the stages' channels."""

    block: Block
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    shortcut: Shortcut


def _imagenet(block: Block, *blocks: int) -> Plan:
    return Plan(block, blocks, (64, 128, 256, 512), projection)


def _cifar(depth: int) -> Plan:
    return Plan(BasicBlock, ((depth - 2) // 6,) * 3, (16, 32, 64), ZeroPadding)


PLANS: dict[int, Plan] = {
    18: _imagenet(BasicBlock, 2, 2, 2, 2),
    34: _imagenet(BasicBlock, 3, 4, 6, 3),
    50: _imagenet(Bottleneck, 3, 4, 6, 3),
    101: _imagenet(Bottleneck, 3, 4, 23, 3),
    152: _imagenet(Bottleneck, 3, 8, 36, 3),
    **{depth: _cifar(depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
}


def resnet(
    inputs: InputSpec, *, depth: int = 18, width: float = 1.0, stem: Stem = "auto"
) -> nn.Module:
    """ResNet (arXiv:1512.03385), full-size or for small images.

    depth: 18, 34 (basic blocks), 50, 101, 152 (bottlenecks): four stages from 64 channels, with
        projections where the shape changes (option B). 8, 14, 20, 32, 44, 56, 110, of the CIFAR-10
        family of 6n + 2 layers: three stages from 16 channels, basic blocks, and shortcuts
        without parameters (option A).
    width: multiplies every number of channels, the stem's too; 1.0 is the paper's.
    stem: "imagenet" is a 7x7 convolution of stride 2 and pooling; "small" the CIFAR-10 family's
        3x3 of stride 1 alone, from 16x16 up; "auto" goes by the image's size.

    Deviations from the paper: bottlenecks take their stride in the 3x3 convolution rather than in
    the first 1x1, as most later implementations do; the fully connected layer starts at a spread
    of 0.01; depths 8 and 14 continue the CIFAR-10 family downwards.

    Raises: BadParameter for an unknown depth, images that are too small, or a bad width.
    """
    if depth not in PLANS:
        valid = sorted(PLANS)
        nearest = min(valid, key=lambda one: abs(one - depth))
        raise BadParameter(
            f"resnet: depth {depth} is not one of {', '.join(map(str, valid))}; "
            f"the nearest is {nearest}"
        )
    plan = PLANS[depth]
    chosen = choose_stem("resnet", inputs, stem, imagenet_from=32)
    channels = scaled(plan.channels[0], width)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        normalise=input_layer(inputs),
        stem=_stem(inputs.shape[0], channels, small=chosen == "small"),
    )
    for number, (count, base) in enumerate(zip(plan.blocks, plan.channels, strict=True), start=1):
        stage, channels = _stage(
            plan, channels, scaled(base, width), count, stride=1 if number == 1 else 2
        )
        layers[f"stage{number}"] = stage
    head = nn.Linear(channels, inputs.n_classes)
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=head)
    network = nn.Sequential(layers)
    initialise(network, heads=[head])
    return network


def _stem(channels: int, outputs: int, *, small: bool) -> nn.Sequential:
    if small:
        first: nn.Module = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
        return nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU())
    first = nn.Conv2d(channels, outputs, 7, stride=2, padding=3, bias=False)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), pool)


def _stage(
    plan: Plan, channels: int, base: int, count: int, *, stride: int
) -> tuple[nn.Sequential, int]:
    """Make `count` blocks, the first of which may halve the grid; tell the channels at the end."""
    blocks = []
    for index in range(count):
        blocks.append(plan.block(channels, base, stride if index == 0 else 1, plan.shortcut))
        channels = base * plan.block.expansion
    return nn.Sequential(*blocks), channels


def _around(channels: int, outputs: int, stride: int, shortcut: Shortcut) -> nn.Module:
    if stride == 1 and channels == outputs:
        return nn.Identity()
    return shortcut(channels, outputs, stride)
