"""AlexNet: five convolutions and three fully connected layers.

Source: Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional
neural networks", figure 2 and section 3.
"""

from collections import OrderedDict
from typing import Literal

from torch import nn

from ..bench.api.defense import InputSpec
from ..bench.api.errors import BadParameter
from .layers import (
    LocalResponseNorm,
    Stem,
    choose_stem,
    dropout_layer,
    initialise,
    input_layer,
    scaled,
)


def alexnet(
    inputs: InputSpec,
    *,
    width: float = 1.0,
    groups: Literal[1, 2] = 1,
    dropout: float = 0.5,
    local_response: bool = True,
    stem: Stem = "auto",
    pool: Literal[2, 3] = 3,
    stride: int | None = None,
    late_stride: int = 1,
) -> nn.Module:
    """AlexNet (Krizhevsky 2012), full-size or for small images.

    width: multiplies every number of channels and hidden units; 1.0 is the paper's.
    groups: 2 cuts the second, fourth and fifth convolutions in two branches, as the paper did to
        fit two GPUs (60,965,224 parameters for 1000 classes); 1 keeps them whole.
    dropout: probability of dropping what each unit of the two hidden fully connected layers gives.
    local_response: normalise across neighbouring channels after the first two convolutions.
    stem: "imagenet" is the paper's 11x11 convolution of stride 4; "small" a 5x5 of stride 1, which
        leaves room for the three poolings from 16x16 up; "auto" goes by the image's size.
    pool: the side of the three poolings' windows, which are 2 apart: 3 overlap, as the paper's.
    stride: of the first convolution; by default as the stem has it.
    late_stride: of the fifth convolution; the paper's is 1.

    Deviations from the paper: He's weights and zero biases instead of a spread of 0.01 and biases
    of one; with two branches, response normalisation reaches across them; the paper gives images
    of 224 pixels where its figures need 227, so zeros are added to the borders until the stride of
    4 fits: 224 and 227 pixels both give 55x55.

    Raises: BadParameter for images that are too small, or a parameter out of range.

    >>> import torch
    >>> from quintain.bench.api.defense import InputSpec
    >>> from quintain.models.alexnet import alexnet
    >>> from quintain.models.cost import cost
    >>> inputs = InputSpec((1, 28, 28), 10, mean=(0.5,), std=(0.25,))
    >>> network = alexnet(inputs, width=0.25)
    >>> network(torch.zeros(2, 1, 28, 28)).shape, cost(network, inputs.shape).parameters
    (torch.Size([2, 10]), 1555898)
    """
    _check(groups, pool, stride, late_stride)
    small = choose_stem("alexnet", inputs, stem, imagenet_from=64) == "small"
    channels = tuple(scaled(c, width, multiple=groups) for c in (96, 256, 384, 384, 256))
    first, sides = _first_layer(inputs, channels[0], stride or (1 if small else 4), small=small)
    height, breadth = (_after_poolings(side, pool, late_stride) for side in sides)
    features = _features(
        first, channels, groups, local_response=local_response, pool=pool, late_stride=late_stride
    )
    hidden = scaled(4096, width)
    head = nn.Linear(hidden, inputs.n_classes)
    classifier: OrderedDict[str, nn.Module] = OrderedDict(
        fc6=nn.Linear(channels[-1] * height * breadth, hidden),
        relu6=nn.ReLU(),
        dropout6=dropout_layer(dropout),
        fc7=nn.Linear(hidden, hidden),
        relu7=nn.ReLU(),
        dropout7=dropout_layer(dropout),
        fc8=head,
    )
    network = nn.Sequential(
        OrderedDict[str, nn.Module](
            normalise=input_layer(inputs),
            features=features,
            flatten=nn.Flatten(),
            classifier=nn.Sequential(classifier),
        )
    )
    initialise(network, heads=[head])
    return network


# 1 had dropout before the hidden layers, as torchvision's later AlexNet has it.
alexnet.version = "2"  # type: ignore[attr-defined]


def _check(groups: int, pool: int, stride: int | None, late_stride: int) -> None:
    """Raises: BadParameter for a parameter out of range."""
    for name, value, valid in (("groups", groups, (1, 2)), ("pool", pool, (2, 3))):
        if value not in valid:
            raise BadParameter(f"alexnet: {name} {value} is not {valid[0]} or {valid[1]}")
    for name, given in (("stride", stride), ("late_stride", late_stride)):
        if given is not None and given < 1:
            raise BadParameter(f"alexnet: {name} {given} must be at least 1")


def _features(
    first: nn.Module,
    channels: tuple[int, ...],
    groups: int,
    *,
    local_response: bool,
    pool: int,
    late_stride: int,
) -> nn.Sequential:
    """Make the five convolutions with their poolings."""
    c1, c2, c3, c4, c5 = channels
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=first, relu1=nn.ReLU())
    if local_response:
        layers["norm1"] = LocalResponseNorm()
    layers["pool1"] = nn.MaxPool2d(pool, stride=2)
    layers["conv2"] = nn.Conv2d(c1, c2, 5, padding=2, groups=groups)
    layers["relu2"] = nn.ReLU()
    if local_response:
        layers["norm2"] = LocalResponseNorm()
    layers["pool2"] = nn.MaxPool2d(pool, stride=2)
    layers["conv3"] = nn.Conv2d(c2, c3, 3, padding=1)
    layers["relu3"] = nn.ReLU()
    layers["conv4"] = nn.Conv2d(c3, c4, 3, padding=1, groups=groups)
    layers["relu4"] = nn.ReLU()
    layers["conv5"] = nn.Conv2d(c4, c5, 3, late_stride, padding=1, groups=groups)
    layers["relu5"] = nn.ReLU()
    layers["pool5"] = nn.MaxPool2d(pool, stride=2)
    return nn.Sequential(layers)


def _first_layer(
    inputs: InputSpec, filters: int, stride: int, *, small: bool
) -> tuple[nn.Module, tuple[int, int]]:
    """Make the first convolution, and tell the height and breadth that come out of it."""
    channels, height, breadth = inputs.shape
    if small:
        down, right = ((side - 1) // stride + 1 for side in (height, breadth))
        return nn.Conv2d(channels, filters, 5, stride, padding=2), (down, right)
    top, left = (-(side - 11) % stride for side in (height, breadth))
    border = (left // 2, left - left // 2, top // 2, top - top // 2)
    layers = nn.Sequential(nn.ZeroPad2d(border), nn.Conv2d(channels, filters, 11, stride))
    return layers, ((height + top - 11) // stride + 1, (breadth + left - 11) // stride + 1)


def _after_poolings(side: int, pool: int, late_stride: int) -> int:
    """The side after two poolings, the fifth convolution and the third pooling.

    Raises: BadParameter where nothing is left.
    """
    left = side
    for number in range(3):
        left = (left - pool) // 2 + 1
        if left < 1:
            raise BadParameter(
                f"alexnet: {side} pixels after the first convolution are too few for its poolings "
                "with these strides; use pool 2, a smaller stride, or larger images"
            )
        if number == 1:
            left = (left - 1) // late_stride + 1
    return left
