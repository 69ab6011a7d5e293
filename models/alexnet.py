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
) -> nn.Module:
    """AlexNet (Krizhevsky 2012), full-size or for small images.

    width: multiplies every number of channels and hidden units; 1.0 is the paper's.
    groups: 2 cuts the second, fourth and fifth convolutions in two branches, as the paper did to
        fit two GPUs (60,965,224 parameters for 1000 classes); 1 keeps them whole.
    dropout: probability of dropping what each unit of the two hidden fully connected layers gives.
    local_response: normalise across neighbouring channels after the first two convolutions.
    stem: "imagenet" is the paper's 11x11 convolution of stride 4; "small" a 5x5 of stride 1, which
        leaves room for the three poolings from 16x16 up; "auto" goes by the image's size.

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
    if groups not in (1, 2):
        raise BadParameter(f"alexnet: groups {groups} is not 1 or 2")
    chosen = choose_stem("alexnet", inputs, stem, imagenet_from=64)
    channels = tuple(scaled(c, width, multiple=groups) for c in (96, 256, 384, 384, 256))
    first, sides = _first_layer(inputs, channels[0], small=chosen == "small")
    height, breadth = (_after_poolings(side) for side in sides)
    features = _features(first, channels, groups, local_response=local_response)
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


def _features(
    first: nn.Module, channels: tuple[int, ...], groups: int, *, local_response: bool
) -> nn.Sequential:
    """Make the five convolutions with their poolings."""
    c1, c2, c3, c4, c5 = channels
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=first, relu1=nn.ReLU())
    if local_response:
        layers["norm1"] = LocalResponseNorm()
    layers["pool1"] = nn.MaxPool2d(3, stride=2)
    layers["conv2"] = nn.Conv2d(c1, c2, 5, padding=2, groups=groups)
    layers["relu2"] = nn.ReLU()
    if local_response:
        layers["norm2"] = LocalResponseNorm()
    layers["pool2"] = nn.MaxPool2d(3, stride=2)
    layers["conv3"] = nn.Conv2d(c2, c3, 3, padding=1)
    layers["relu3"] = nn.ReLU()
    layers["conv4"] = nn.Conv2d(c3, c4, 3, padding=1, groups=groups)
    layers["relu4"] = nn.ReLU()
    layers["conv5"] = nn.Conv2d(c4, c5, 3, padding=1, groups=groups)
    layers["relu5"] = nn.ReLU()
    layers["pool5"] = nn.MaxPool2d(3, stride=2)
    return nn.Sequential(layers)


def _first_layer(
    inputs: InputSpec, filters: int, *, small: bool
) -> tuple[nn.Module, tuple[int, int]]:
    """Make the first convolution, and tell the height and breadth that come out of it."""
    channels, height, breadth = inputs.shape
    if small:
        return nn.Conv2d(channels, filters, 5, padding=2), (height, breadth)
    top, left = (-(side - 11) % 4 for side in (height, breadth))
    border = (left // 2, left - left // 2, top // 2, top - top // 2)
    layers = nn.Sequential(nn.ZeroPad2d(border), nn.Conv2d(channels, filters, 11, stride=4))
    return layers, ((height + top - 11) // 4 + 1, (breadth + left - 11) // 4 + 1)


def _after_poolings(side: int) -> int:
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side
