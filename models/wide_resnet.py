"""WideResNet: pre-activation ResNets with fewer, wider blocks.

Source: Zagoruyko & Komodakis 2016, "Wide residual networks", arXiv:1605.07146, table 1.
"""

from functools import partial

from torch import nn

from ..bench.api.defense import InputSpec
from ..bench.api.errors import BadParameter
from .blocks import PreActivation, basic
from .layers import Stem, dropout_layer, scaled
from .resnet import Plan, assemble


def wide_resnet(
    inputs: InputSpec,
    *,
    depth: int = 28,
    width: float = 10.0,
    dropout: float = 0.0,
    stem: Stem = "auto",
) -> nn.Module:
    """WideResNet (arXiv:1605.07146): pre-activation blocks, few but wide; WRN-28-10 by default.

    depth: 6n + 4 convolutions, three projections included: three stages of n basic blocks. 28 and
        34 are common in robust training.
    width: the paper's k: stages of 16k, 32k and 64k channels. The first convolution keeps its 16.
    dropout: probability of dropping each value between the two convolutions of a block.
    stem: "small" is the paper's 3x3 convolution; "imagenet" a 7x7 of stride 2 and pooling, which
        is ours, for photographs; "auto" goes by the image's size.

    36,479,194 parameters for WRN-28-10 and ten classes. Deviations from the paper: at width 1,
    where the first block keeps the shape, its shortcut starts after the first activation as in
    arXiv:1603.05027; the fully connected layer starts at a spread of 0.01.

    Raises: BadParameter for another depth, images that are too small, or a parameter out of range.

    >>> import torch
    >>> from quintain.bench.api.defense import InputSpec
    >>> from quintain.models.cost import cost
    >>> from quintain.models.wide_resnet import wide_resnet
    >>> inputs = InputSpec((3, 32, 32), 10, mean=(0.5,) * 3, std=(0.25,) * 3)
    >>> network = wide_resnet(inputs, depth=10, width=2.0)
    >>> network(torch.zeros(2, 3, 32, 32)).shape, cost(network, inputs.shape).parameters
    (torch.Size([2, 10]), 303706)
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        nearest = 6 * max(1, round((depth - 4) / 6)) + 4
        raise BadParameter(
            f"wide-resnet: depth {depth} is not 6n + 4, such as 10, 16, 22, 28, 34, 40; "
            f"the nearest is {nearest}"
        )
    dropout_layer(dropout)
    channels = tuple(scaled(base, width) for base in (16, 32, 64))
    return assemble(
        "wide-resnet",
        inputs,
        Plan(basic, (blocks,) * 3, channels, 16, projected=True),
        partial(PreActivation, dropout=dropout),
        stem=stem,
        closing=True,
    )
