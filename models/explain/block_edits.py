"""Residual networks with blocks deleted, exchanged, or left without their shortcut.

Source: Veit, Wilber & Belongie 2016, arXiv:1605.06431, section 4. Deleting named blocks is
`models.deletion.delete_blocks`; here are random ones, and the other edits.
"""

import copy
from collections.abc import Iterable

import torch
from torch import nn

from ...bench.api.errors import BadParameter, closest
from ..blocks import Nothing
from ..deletion import block_names


def random_blocks(model: nn.Module, count: int, seed: int = 0) -> tuple[str, ...]:
    """Names of `count` different blocks, drawn at random, in the order of the layers.

    Raises: BadParameter for more blocks than there are.

    >>> from ...bench.api.defense import InputSpec
    >>> from ..deletion import delete_blocks
    >>> from ..resnet import resnet
    >>> model = resnet(InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3), depth=20)
    >>> shorter = delete_blocks(model, random_blocks(model, 2))
    """
    names = block_names(model)
    if not 0 <= count <= len(names):
        raise BadParameter(f"{count} blocks of the {len(names)} that the network has")
    chosen = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))[:count]
    return tuple(names[number] for number in sorted(chosen.tolist()))


def random_swaps(model: nn.Module, count: int, seed: int = 0) -> tuple[tuple[str, str], ...]:
    """`count` pairs of blocks of equal shape, drawn at random one after another.

    A block may be in several pairs: these are the steps of a random reordering.

    Raises: BadParameter for a network without two blocks of equal shape.
    """
    names = block_names(model)
    pairs = [
        (one, other)
        for number, one in enumerate(names)
        for other in names[number + 1 :]
        if _alike(model.get_submodule(one), model.get_submodule(other))
    ]
    if not pairs:
        raise BadParameter("the network has no two blocks of equal shape")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(pairs), (count,), generator=generator)
    return tuple(pairs[number] for number in chosen.tolist())


def swap_blocks(model: nn.Module, pairs: Iterable[tuple[str, str]]) -> nn.Module:
    """Copy a network and exchange pairs of its blocks, one pair after another.

    Raises: BadParameter for a block that there is not, or two of different shapes.

    >>> from ...bench.api.defense import InputSpec
    >>> from ..resnet import resnet
    >>> model = resnet(InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3), depth=20)
    >>> swapped = swap_blocks(model, [("stage1.0", "stage1.2")])
    >>> torch.equal(swapped.stage1[0].residual[0].weight, model.stage1[2].residual[0].weight)
    True
    """
    changed = copy.deepcopy(model)
    for one, other in pairs:
        first, second = _block(changed, one), _block(changed, other)
        if not _alike(first, second):
            raise BadParameter(f"blocks '{one}' and '{other}' have different shapes")
        changed.set_submodule(one, second)
        changed.set_submodule(other, first)
    return changed


def remove_shortcuts(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Copy a network and let the shortcuts of some blocks carry nothing: the branch alone is left.

    The copy has the same entries in its `state_dict`.

    Raises: BadParameter for a block that there is not, or that has no shortcut.

    >>> from ...bench.api.defense import InputSpec
    >>> from ..resnet import resnet
    >>> model = resnet(InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3), depth=20)
    >>> without = remove_shortcuts(model, ["stage1.1"])
    >>> z = torch.rand(1, 16, 8, 8)
    >>> torch.equal(without.stage1[1](z), without.stage1[1].residual(z).relu())
    True
    """
    changed = copy.deepcopy(model)
    for name in names:
        block = _block(changed, name)
        shortcut = getattr(block, "shortcut", None)
        if not isinstance(shortcut, nn.Module):
            raise BadParameter(f"block '{name}' has no shortcut")
        block.shortcut = Nothing(*shortcut.children())
    return changed


def _block(model: nn.Module, name: str) -> nn.Module:
    names = block_names(model)
    if name not in names:
        there = f"there are: {', '.join(names)}" if names else "the network has none"
        raise BadParameter(f"no block '{name}'{closest(name, names) or ';'} {there}")
    return model.get_submodule(name)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether one can stand in the other's place: the same layers, of the same shapes."""
    shapes = ({key: value.shape for key, value in it.state_dict().items()} for it in (one, other))
    return type(one) is type(other) and next(shapes) == next(shapes)
