"""What the filters of a first layer look for: how far they see colour, and how branches differ.

Source: Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural
networks", section 6.1 and figure 3: of two branches one learnt colour and one did not.
"""

import torch
from torch import Tensor, nn

from ...bench.api.errors import BadParameter


def first_filters(model: nn.Module) -> Tensor:
    """The weights of the first convolution, in the order of registration: (F, C, h, w).

    Raises: BadParameter for a network without one.

    >>> first_filters(nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 4, 3))).shape
    torch.Size([8, 3, 5, 5])
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            return layer.weight.detach()
    raise BadParameter("the network has no convolution")


def colour_selectivity(filters: Tensor) -> Tensor:
    """The share of a filter's squared weights that a grey image does not meet: (F,) in [0, 1].

    filters: (F, 3, h, w). A grey image shows a filter the mean of its channels; what is left when
    that mean is subtracted answers to colour alone. 0 is a filter for brightness, 1 one for colour;
    of independent random weights it is 2/3 on average. A filter of zeros has 0.

    Raises: BadParameter for filters of other than three channels.

    >>> edge = torch.tensor([[1.0, -1.0]]).expand(3, 1, 2)
    >>> red_green = edge * torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    >>> colour_selectivity(torch.stack([edge, red_green]))
    tensor([0., 1.], dtype=torch.float64)
    """
    if filters.dim() != 4 or filters.shape[1] != 3:
        raise BadParameter(f"filters of shape {tuple(filters.shape)}, not (F, 3, h, w)")
    weights = filters.double()
    colour = weights - weights.mean(dim=1, keepdim=True)
    total = weights.square().sum(dim=(1, 2, 3))
    share = colour.square().sum(dim=(1, 2, 3)) / total
    return torch.where(total > 0, share, 0.0)


def branch_difference(selectivity: Tensor) -> float:
    """How far apart the mean selectivities of the first and the second half of the filters are.

    In a network of two branches these are the branches; in one of a single branch the halves mean
    nothing, and the difference is what chance makes of it. One number a trained network: compare
    networks of several seeds, `scipy.stats.mannwhitneyu` for instance.

    Raises: BadParameter for an odd number of filters.

    >>> branch_difference(torch.tensor([0.25, 0.25, 0.5, 1.0]))
    0.5
    """
    if len(selectivity) % 2 or not len(selectivity):
        raise BadParameter(f"{len(selectivity)} filters do not split in two halves")
    first, second = selectivity.double().chunk(2)
    return abs(float(first.mean() - second.mean()))
