"""GoogLeNet: 22 layers of Inception modules, with two auxiliary classifiers.

Source: Szegedy et al. 2014, "Going deeper with convolutions", arXiv:1409.4842: table 1 for the
network, section 5 for the auxiliary classifiers.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..bench.api.defense import InputSpec
from ..bench.api.errors import check_choice
from .inception import Filters, Inception, NaiveInception, convolution
from .layers import (
    LocalResponseNorm,
    Stem,
    choose_stem,
    dropout_layer,
    initialise,
    input_layer,
    scaled,
)

TABLE = {
    "3a": Filters(64, 96, 128, 16, 32, 32),
    "3b": Filters(128, 128, 192, 32, 96, 64),
    "4a": Filters(192, 96, 208, 16, 48, 64),
    "4b": Filters(160, 112, 224, 24, 64, 64),
    "4c": Filters(128, 128, 256, 24, 64, 64),
    "4d": Filters(112, 144, 288, 32, 64, 64),
    "4e": Filters(256, 160, 320, 32, 128, 128),
    "5a": Filters(256, 160, 320, 32, 128, 128),
    "5b": Filters(384, 192, 384, 48, 128, 128),
}

ModuleName = Literal["reduced", "naive"]

MODULES: dict[ModuleName, type[Inception] | type[NaiveInception]] = {
    "reduced": Inception,
    "naive": NaiveInception,
}


class AuxiliaryHead(nn.Module):
    """Small classifier on an inner layer, which feeds gradient to the layers below (section 5).

    Average pooling to 4x4: the paper's 5x5 of stride 3 on its 14x14 grid, adaptive on any other.
    """

    def __init__(self, channels: int, n_classes: int, *, width: float, batch_norm: bool) -> None:
        super().__init__()
        filters, hidden = scaled(128, width), scaled(1024, width)
        self.reduce = convolution(channels, filters, 1, batch_norm=batch_norm)
        self.hidden = nn.Linear(16 * filters, hidden)
        self.dropout = nn.Dropout(0.7)
        self.classifier = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> logits (B, K)."""
        paper = tuple(x.shape[-2:]) == (14, 14)
        pooled = F.avg_pool2d(x, 5, stride=3) if paper else F.adaptive_avg_pool2d(x, 4)
        hidden = F.relu(self.hidden(self.reduce(pooled).flatten(1)))
        logits: Tensor = self.classifier(self.dropout(hidden))
        return logits


class GoogLeNet(nn.Module):
    """The network of table 1, cut where the auxiliary classifiers branch off.

    In training mode with auxiliary classifiers the forward pass returns (logits, logits after 4a,
    logits after 4d), else logits alone. The loss of each auxiliary one counts `auxiliary_weight`.
    """

    auxiliary_weight = 0.3

    def __init__(
        self,
        inputs: InputSpec,
        *,
        width: float,
        batch_norm: bool,
        auxiliary: bool,
        dropout: float,
        small: bool,
        module: type[Inception] | type[NaiveInception],
    ) -> None:
        super().__init__()
        self.normalise = input_layer(inputs)
        self.stem = _stem(inputs.shape[0], width, batch_norm=batch_norm, small=small)
        stack = partial(_stack, partial(module, batch_norm=batch_norm), width)
        self.lower, channels = stack("3a 3b pool3 4a", scaled(192, width))
        self.middle, middle_channels = stack("4b 4c 4d", channels)
        self.upper, top = stack("4e pool4 5a 5b", middle_channels)
        self.dropout = dropout_layer(dropout)
        self.classifier = nn.Linear(top, inputs.n_classes)
        heads = [self.classifier]
        self.auxiliary = nn.ModuleList()
        for below in (channels, middle_channels) if auxiliary else ():
            head = AuxiliaryHead(below, inputs.n_classes, width=width, batch_norm=batch_norm)
            self.auxiliary.append(head)
            heads.append(head.classifier)
        initialise(self, heads)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(B, C, H, W) in [0, 1] -> logits (B, K), with the auxiliary ones in training mode."""
        lower = self.lower(self.stem(self.normalise(x)))
        middle = self.middle(lower)
        pooled = self.upper(middle).mean(dim=(2, 3))
        logits: Tensor = self.classifier(self.dropout(pooled))
        if not (self.training and self.auxiliary):
            return logits
        inner = zip(self.auxiliary, (lower, middle), strict=True)
        return (logits, *(head(features) for head, features in inner))


def googlenet(
    inputs: InputSpec,
    *,
    width: float = 1.0,
    batch_norm: bool = True,
    auxiliary: bool = True,
    dropout: float = 0.4,
    stem: Stem = "auto",
    modules: ModuleName = "reduced",
) -> nn.Module:
    """GoogLeNet (arXiv:1409.4842), full-size or for small images.

    width: multiplies every number of channels; 1.0 is the paper's.
    batch_norm: normalise after every convolution (arXiv:1502.03167), instead of the paper's two
        local response normalisations.
    auxiliary: have the two auxiliary classifiers, used in training mode only.
    dropout: probability of dropping each of the last features; the auxiliary ones keep 0.7.
    stem: "imagenet" is the paper's 7x7 convolution of stride 2 and pooling; "small" a 3x3 of
        stride 1 and no first pooling, from 16x16 up; "auto" goes by the image's size.
    modules: "reduced" are the paper's, with 1x1 convolutions before the costly ones; "naive" have
        none (figure 2a), with the 3x3, 5x5 and 1x1 filters of table 1: channels, and with them
        parameters and multiply-adds, grow from module to module.

    Deviations from the paper: batch normalisation unless turned off, since without it the network
    learns slowly; He's weights. Poolings keep a last incomplete window, which gives the paper's
    grids of 56, 28, 14 and 7 from 224 pixels. 6,998,552 parameters with 1000 classes and neither
    batch normalisation nor auxiliary classifiers.

    Raises: BadParameter for images that are too small, or a parameter out of range.

    In training mode there are the logits of two auxiliary classifiers besides:
    >>> import torch
    >>> from quintain.bench.api.defense import InputSpec
    >>> from quintain.models.googlenet import googlenet
    >>> inputs = InputSpec((3, 32, 32), 10, mean=(0.5,) * 3, std=(0.25,) * 3)
    >>> network = googlenet(inputs, width=0.25)
    >>> len(network.train()(torch.rand(2, 3, 32, 32)))
    3
    >>> network.eval()(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    check_choice("googlenet: modules", modules, MODULES)
    chosen = choose_stem("googlenet", inputs, stem, imagenet_from=32)
    return GoogLeNet(
        inputs,
        width=width,
        batch_norm=batch_norm,
        auxiliary=auxiliary,
        dropout=dropout,
        small=chosen == "small",
        module=MODULES[modules],
    )


def _stem(channels: int, width: float, *, batch_norm: bool, small: bool) -> nn.Sequential:
    block = partial(convolution, batch_norm=batch_norm)
    narrow, wide = scaled(64, width), scaled(192, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if small:
        layers["conv1"] = block(channels, narrow, 3)
    else:
        layers["conv1"] = block(channels, narrow, 7, stride=2)
        layers["pool1"] = _halve()
    if not batch_norm:
        layers["norm1"] = LocalResponseNorm()
    layers["reduce2"] = block(narrow, narrow, 1)
    layers["conv2"] = block(narrow, wide, 3)
    if not batch_norm:
        layers["norm2"] = LocalResponseNorm()
    layers["pool2"] = _halve()
    return nn.Sequential(layers)


def _stack(
    module: Callable[[int, Filters], Inception | NaiveInception],
    width: float,
    names: str,
    channels: int,
) -> tuple[nn.Sequential, int]:
    """Put the named modules and poolings on top of each other, and tell the channels at the end."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name in names.split():
        if name.startswith("pool"):
            layers[name] = _halve()
            continue
        made = module(channels, TABLE[name].scaled(width))
        layers[f"inception{name}"] = made
        channels = made.outputs
    return nn.Sequential(layers), channels


def _halve() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
