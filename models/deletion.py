"""Residual blocks deleted by name, to study what a network does without them.

Source: Veit, Wilber & Belongie 2016, "Residual networks behave like ensembles of relatively shallow
networks", arXiv:1605.06431, section 4.1.
"""

import copy
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import nn

from ..bench.api.errors import BadParameter, closest


@runtime_checkable
class Deletable(Protocol):
    """A block of layers with a path around them."""

    def delete(self) -> None:
        """Leave only the path around from now on. The layers stay, so that checkpoints fit.

        Raises: BadParameter when there is no such path.
        """


def block_names(model: nn.Module) -> tuple[str, ...]:
    """Name the blocks of a network, such as "stage2.1", in the order of the layers."""
    return tuple(name for name, one in model.named_modules() if isinstance(one, Deletable))


def delete_blocks(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Copy a network and delete some of its blocks: what comes in goes on by the shortcut alone.

    Where a block changes the shape, its shortcut (projection or zero padding) remains. A plain
    block has no shortcut: its input passes through, which is only possible where the shape stays.
    The copy has the same entries in its `state_dict`, those of the deleted layers included.

    Raises: BadParameter for a block that there is not, or that cannot be deleted.

    >>> import torch
    >>> from quintain.bench.api.defense import InputSpec
    >>> from quintain.models.deletion import block_names, delete_blocks
    >>> from quintain.models.resnet import resnet
    >>> network = resnet(InputSpec((3, 32, 32), 10, mean=(0.5,) * 3, std=(0.25,) * 3), depth=14)
    >>> block_names(network)
    ('stage1.0', 'stage1.1', 'stage2.0', 'stage2.1', 'stage3.0', 'stage3.1')
    >>> shorter = delete_blocks(network, ["stage2.1"])
    >>> shorter(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    remaining = copy.deepcopy(model)
    blocks = block_names(remaining)
    for name in names:
        if name not in blocks:
            there = f"there are: {', '.join(blocks)}" if blocks else "the network has none"
            raise BadParameter(f"no block '{name}'{closest(name, blocks) or ';'} {there}")
        block = remaining.get_submodule(name)
        assert isinstance(block, Deletable)
        try:
            block.delete()
        except BadParameter as error:
            raise BadParameter(f"block '{name}' cannot be deleted: {error}") from None
    return remaining
