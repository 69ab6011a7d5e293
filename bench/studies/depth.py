"""Which layers a study looks at to follow a network from its first layer to its logits."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...models.explain.layers import calls
from ..api.errors import BadParameter, closest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOGITS = "logits"


def layers_by_depth(module: nn.Module, x: Tensor, count: int) -> list[str]:
    """Names of at most `count` layers, first to last; "" is the network itself, its logits.

    The first layer with weights, the last that gives maps of each height and width after it, the
    first that gives vectors of each length, and the logits; of more, as many as asked for, spread
    evenly. Branches meet before the height changes, so that none of these is a part of a layer.
    """
    *within, _ = calls(module, x[:1])
    weighted = (at for at, one in enumerate(within) if [*one.module.parameters(recurse=False)])
    within = within[next(weighted, 0) :]
    first = within[0]
    by_shape: dict[tuple[int, ...], str] = {}
    for one in within:
        shape = tuple(one.output.shape[1:])
        if math.prod(shape[1:]) == 1:  # also of maps with one position
            by_shape.setdefault((shape[0],), one.name)
        else:
            by_shape[shape[1:]] = one.name
    by_shape.pop(tuple(within[-1].output.shape[1:]), None)  # that of the logits
    names = list(dict.fromkeys([first.name, *by_shape.values(), ""]))
    order = {one.name: number for number, one in enumerate(within)}
    names.sort(key=lambda name: order.get(name, len(order)))
    if len(names) <= count:
        return names
    chosen = torch.linspace(0, len(names) - 1, count).round().long().tolist()
    return [names[one] for one in chosen]


def checked_layers(module: nn.Module, x: Tensor, layers: tuple[str, ...]) -> list[str]:
    """The layers that the user names, `logits` for the network itself.

    Raises: BadParameter for one that there is not, with the nearest name.
    """
    known = [one.name for one in calls(module, x[:1]) if one.name]
    for name in layers:
        if name not in (*known, LOGITS):
            near = closest(name, known)
            raise BadParameter(f"no layer '{name}'{near}; there are {', '.join(known)}, {LOGITS}")
    return ["" if name == LOGITS else name for name in layers]


def show_layers(axes: "Axes", layers: Sequence[str]) -> None:
    """Name the layers below the axis, first to last."""
    axes.set_xticks(
        range(len(layers)), layers, rotation=30, ha="right", rotation_mode="anchor", fontsize=6.5
    )
    axes.set_xlim(-0.5, len(layers) - 0.5)


def shown(layer: str) -> str:
    """What tables call a layer."""
    return layer or LOGITS
