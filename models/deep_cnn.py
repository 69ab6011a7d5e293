"""Deep CNN: equal convolutions on top of each other, to study depth and activations with."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor, nn

from ..bench.api.defense import InputSpec
from ..bench.api.errors import BadParameter, check_choice
from .layers import input_layer, scaled

ActivationName = Literal["relu", "tanh", "sigmoid"]

ACTIVATIONS: Mapping[ActivationName, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Layer(nn.Module):
    """A 3x3 convolution and its activation; with a skip, added to what came in."""

    def __init__(self, channels: int, activation: nn.Module, *, skip: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = activation
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        out: Tensor = self.activation(self.conv(x))
        return x + out if self.skip else out


def deep_cnn(
    inputs: InputSpec,
    *,
    depth: int = 8,
    activation: ActivationName = "relu",
    skips: bool = False,
    width: float = 1.0,
) -> nn.Module:
    """Deep CNN without normalisation: a stem, `depth` equal convolutions, global average pooling.

    What batch normalisation would hide is bare here: how an activation and a skip carry the
    gradient through many layers.

    depth: of the 3x3 convolutions after the stem, all on one grid of half the image's side.
    activation: "relu", "tanh" or "sigmoid", after every convolution.
    skips: add what comes into each of the equal convolutions to what it gives.
    width: multiplies the 32 channels.

    Weights as is usual for each activation: He's before ReLU (arXiv:1502.01852), Glorot's (Glorot &
    Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks")
    otherwise; biases of zero.

    Raises: BadParameter for images that are too small, or a parameter out of range.

    >>> import torch
    >>> from quintain.bench.api.defense import InputSpec
    >>> from quintain.models.deep_cnn import deep_cnn
    >>> inputs = InputSpec((1, 16, 16), 10, mean=(0.5,), std=(0.25,))
    >>> deep_cnn(inputs, depth=4, activation="tanh")(torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 10])
    """
    check_choice("deep-cnn: activation", activation, ACTIVATIONS)
    if depth < 1:
        raise BadParameter(f"deep-cnn: depth {depth} must be at least 1")
    if min(inputs.shape[1:]) < 2:
        raise BadParameter("deep-cnn: images need at least 2x2 pixels")
    channels, made = scaled(32, width), ACTIVATIONS[activation]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        normalise=input_layer(inputs),
        stem=nn.Conv2d(inputs.shape[0], channels, 3, padding=1),
        activation=made(),
        reduce=nn.AvgPool2d(2),
        layers=nn.Sequential(*(Layer(channels, made(), skip=skips) for _ in range(depth))),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(channels, inputs.n_classes),
    )
    network = nn.Sequential(layers)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            if activation == "relu":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.xavier_normal_(layer.weight)
    return network
