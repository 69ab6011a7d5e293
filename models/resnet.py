"""ResNet: layers that learn what to add to their input.

Sources: He et al. 2015, "Deep residual learning for image recognition", arXiv:1512.03385: table 1
for the ImageNet networks, section 4.2 for the CIFAR-10 family and the plain networks; He et al.
2016, "Identity mappings in deep residual networks", arXiv:1603.05027, for pre-activation.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from ..bench.api.defense import InputSpec
from ..bench.api.errors import BadParameter, check_choice
from .blocks import (
    Block,
    Layout,
    Place,
    Plain,
    PreActivation,
    Residual,
    activation,
    basic,
    bottleneck,
    early_bottleneck,
)
from .layers import Stem, choose_stem, initialise, input_layer, scaled

BlockName = Literal["residual", "pre-activation", "plain"]

BLOCKS: dict[BlockName, Block] = {
    "residual": Residual,
    "pre-activation": PreActivation,
    "plain": Plain,
}


@dataclass(frozen=True)
class Plan:
    """What a network is made of: how many blocks each stage has, with which convolutions.

    channels: of the stages, before what the layout makes of them. stem: channels of the first
    convolution. projected: see Place.
    """

    layout: Layout
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    stem: int
    projected: bool


def _imagenet(layout: Layout, *blocks: int) -> Plan:
    return Plan(layout, blocks, (64, 128, 256, 512), 64, projected=True)


def _cifar(depth: int) -> Plan:
    return Plan(basic, ((depth - 2) // 6,) * 3, (16, 32, 64), 16, projected=False)


def _cifar_bottlenecks(depth: int) -> Plan:
    return Plan(bottleneck, ((depth - 2) // 9,) * 3, (16, 32, 64), 16, projected=True)


PLANS: dict[int, Plan] = {
    18: _imagenet(basic, 2, 2, 2, 2),
    34: _imagenet(basic, 3, 4, 6, 3),
    50: _imagenet(bottleneck, 3, 4, 6, 3),
    101: _imagenet(bottleneck, 3, 4, 23, 3),
    152: _imagenet(bottleneck, 3, 8, 36, 3),
    200: _imagenet(bottleneck, 3, 24, 36, 3),
    **{depth: _cifar(depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{depth: _cifar_bottlenecks(depth) for depth in (164, 1001)},
}


def resnet(
    inputs: InputSpec,
    *,
    depth: int = 18,
    width: float = 1.0,
    stem: Stem = "auto",
    block: BlockName = "residual",
    bottleneck_stride: Literal["3x3", "1x1"] = "3x3",
) -> nn.Module:
    """ResNet (arXiv:1512.03385), full-size or for small images.

    depth: 18, 34 (basic blocks), 50, 101, 152, 200 (bottlenecks): four stages from 64 channels,
        with projections where the shape changes (option B). 8, 14, 20, 32, 44, 56, 110, of the
        CIFAR-10 family of 6n + 2 layers: three stages from 16 channels, basic blocks, and shortcuts
        without parameters (option A). 164 and 1001, of 9n + 2 layers: the same stages of
        bottlenecks, with projections.
    width: multiplies every number of channels, the stem's too; 1.0 is the paper's.
    stem: "imagenet" is a 7x7 convolution of stride 2 and pooling; "small" the CIFAR-10 family's
        3x3 of stride 1 alone, from 16x16 up; "auto" goes by the image's size.
    block: "residual" is the paper's; "pre-activation" normalises and activates before each
        convolution, and once more after the last block (arXiv:1603.05027); "plain" has the same
        layers without shortcuts, projections included.
    bottleneck_stride: which convolution of a bottleneck halves the grid: "1x1", the first, in the
        paper; "3x3" in most later implementations, at 4.1e9 multiply-adds for 50 layers, not 3.8e9.

    Deviations from the papers: the stride in the 3x3 convolution unless told otherwise; the fully
    connected layer starts at a spread of 0.01; depths 8 and 14 continue the CIFAR-10 family
    downwards.

    Raises: BadParameter for an unknown depth or block, images that are too small, a bad width, or
    a bottleneck_stride without bottlenecks.

    >>> import torch
    >>> from quintain.bench.api.defense import InputSpec
    >>> from quintain.models.cost import cost
    >>> from quintain.models.resnet import resnet
    >>> inputs = InputSpec((3, 32, 32), 10, mean=(0.5,) * 3, std=(0.25,) * 3)
    >>> network = resnet(inputs, depth=8)
    >>> network(torch.zeros(2, 3, 32, 32)).shape, cost(network, inputs.shape).parameters
    (torch.Size([2, 10]), 75290)
    """
    if depth not in PLANS:
        valid = sorted(PLANS)
        nearest = min(valid, key=lambda one: abs(one - depth))
        raise BadParameter(
            f"resnet: depth {depth} is not one of {', '.join(map(str, valid))}; "
            f"the nearest is {nearest}"
        )
    check_choice("resnet: block", block, BLOCKS)
    plan = PLANS[depth]
    return assemble(
        "resnet",
        inputs,
        Plan(
            _strided(plan.layout, depth, bottleneck_stride),
            plan.blocks,
            tuple(scaled(base, width) for base in plan.channels),
            scaled(plan.stem, width),
            plan.projected,
        ),
        BLOCKS[block],
        stem=stem,
        closing=block == "pre-activation",
    )


def assemble(
    network: str, inputs: InputSpec, plan: Plan, block: Block, *, stem: Stem, closing: bool
) -> nn.Sequential:
    """Put a stem, stages of blocks and a classifier on top of each other, with fresh weights.

    closing: normalise and activate what the last block gives, which pre-activation needs.

    Raises: BadParameter for images that are too small.
    """
    small = choose_stem(network, inputs, stem, imagenet_from=32) == "small"
    channels = plan.stem
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        normalise=input_layer(inputs), stem=_stem(inputs.shape[0], channels, small=small)
    )
    for number, (count, base) in enumerate(zip(plan.blocks, plan.channels, strict=True), start=1):
        stage = nn.Sequential()
        for index in range(count):
            stride = 2 if number > 1 and index == 0 else 1
            place = Place(
                channels,
                plan.layout(base, stride),
                plan.projected,
                first=number == 1 and index == 0,
            )
            stage.append(block(place))
            channels = place.outputs
        layers[f"stage{number}"] = stage
    if closing:
        layers["activation"] = activation(channels)
    head = nn.Linear(channels, inputs.n_classes)
    layers.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=head)
    made = nn.Sequential(layers)
    initialise(made, heads=[head])
    return made


def _strided(layout: Layout, depth: int, where: str) -> Layout:
    """Return the layout with its stride where it is asked for."""
    if where not in get_args(Literal["3x3", "1x1"]):
        raise BadParameter(f"resnet: bottleneck_stride '{where}' is not one of 3x3, 1x1")
    if where == "3x3":
        return layout
    if layout is not bottleneck:
        raise BadParameter(f"resnet: depth {depth} has no bottlenecks for bottleneck_stride '1x1'")
    return early_bottleneck


def _stem(channels: int, outputs: int, *, small: bool) -> nn.Sequential:
    if small:
        first: nn.Module = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
        return nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU())
    first = nn.Conv2d(channels, outputs, 7, stride=2, padding=3, bias=False)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), pool)
