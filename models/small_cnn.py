"""The small convolutional network that robustness papers attack on MNIST.

Source: Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks",
arXiv:1706.06083, section 5 and the code published with it.
"""

from collections import OrderedDict

from torch import nn

from ..bench.api.defense import InputSpec
from ..bench.api.errors import BadParameter
from .layers import initialise, input_layer, scaled

_POOLINGS = 2


def small_cnn(inputs: InputSpec, *, width: float = 1.0) -> nn.Module:
    """Small CNN (arXiv:1706.06083): two 5x5 convolutions with pooling, two fully connected layers.

    width: multiplies the 32 and 64 channels and the 1024 hidden units; 1.0 is the paper's
        (3,274,634 parameters for MNIST).

    Deviations from the paper: images are normalised inside; He's weights and zero biases.

    Raises: BadParameter for images that are too small, or a bad width.

    >>> import torch
    >>> from quintain.bench.api.defense import InputSpec
    >>> from quintain.models.cost import cost
    >>> from quintain.models.small_cnn import small_cnn
    >>> inputs = InputSpec((1, 28, 28), 10, mean=(0.13,), std=(0.31,))
    >>> network = small_cnn(inputs)
    >>> network(torch.zeros(2, 1, 28, 28)).shape, cost(network, inputs.shape).parameters
    (torch.Size([2, 10]), 3274634)
    """
    channels, height, breadth = inputs.shape
    if min(height, breadth) < 2**_POOLINGS:
        raise BadParameter(
            f"small-cnn: images of {height}x{breadth} are too small; it takes 4x4 or larger"
        )
    c1, c2, hidden = (scaled(c, width) for c in (32, 64, 1024))
    pixels = (height >> _POOLINGS) * (breadth >> _POOLINGS)
    head = nn.Linear(hidden, inputs.n_classes)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        normalise=input_layer(inputs),
        conv1=nn.Conv2d(channels, c1, 5, padding=2),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(c1, c2, 5, padding=2),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc3=nn.Linear(c2 * pixels, hidden),
        relu3=nn.ReLU(),
        fc4=head,
    )
    network = nn.Sequential(layers)
    initialise(network, heads=[head])
    return network
