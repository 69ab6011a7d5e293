"""The shortest way to a hyperplane that stays in the box [0, 1]."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...bench.api.threat import Norm

_TINY = 1e-300


def way_to_plane(x: Tensor, normal: Tensor, amount: Tensor, norm: Norm) -> Tensor:
    """(B, C, H, W) float64: the shortest move with <normal, move> = amount within [0, 1].

    x + move lies in [0, 1]. Where the box has no such move, the one in it that comes closest to
    the plane. Exact up to rounding: a coordinate gains by moving along its normal's sign alone, so
    what is left is to share the amount out, by how much each gains for its move and how much room
    it has.

    Source of the problem: Croce & Hein 2020 (arXiv:1907.02044), equation (4).

    x, normal: (B, C, H, W). amount: (B,).
    """
    weight, at = normal.double().flatten(1), x.double().flatten(1)
    direction = weight.sign() * amount.double().sign()[:, None]
    room = torch.where(direction > 0, 1.0 - at, at)
    size = _SHARES[norm](weight.abs(), room, amount.double().abs())
    return (direction * size).reshape(x.shape)


def _even(gain: Tensor, room: Tensor, amount: Tensor) -> Tensor:
    """Linf: every coordinate moves as far, or as far as it can."""
    return _level(gain, room, amount)[:, None].minimum(room)


def _proportional(gain: Tensor, room: Tensor, amount: Tensor) -> Tensor:
    """L2: every coordinate moves in proportion to its gain, or as far as it can."""
    breaks = torch.where(gain > 0, room / gain.clamp(min=_TINY), 0.0)
    return (_level(gain.square(), breaks, amount)[:, None] * gain).minimum(room)


def _greedy(gain: Tensor, room: Tensor, amount: Tensor) -> Tensor:
    """L1: the coordinates of largest gain move first, each as far as it can."""
    gain, order = gain.sort(dim=1, descending=True, stable=True)
    room = room.gather(1, order)
    reached = _shifted((gain * room).cumsum(dim=1))
    size = ((amount[:, None] - reached) / gain.clamp(min=_TINY)).clamp(min=0.0).minimum(room)
    return torch.zeros_like(size).scatter(1, order, size)


_SHARES: dict[Norm, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "Linf": _even,
    "L2": _proportional,
    "L1": _greedy,
}


def _level(slopes: Tensor, breaks: Tensor, amount: Tensor) -> Tensor:
    """(B,): the smallest t with sum(slopes * min(t, breaks)) >= amount, else the largest break.

    The sum rises piecewise linearly with t: sort the breaks, find the piece, solve in it.
    """
    breaks, order = breaks.sort(dim=1, stable=True)
    slopes = slopes.gather(1, order)
    stopped = _shifted((slopes * breaks).cumsum(dim=1))  # by coordinates before this break
    rising = slopes.flip(1).cumsum(dim=1).flip(1)  # how fast the sum grows up to this break
    sums = stopped + rising * breaks
    piece = (sums < amount[:, None]).sum(dim=1)
    inside = piece < sums.shape[1]
    piece = piece.clamp(max=sums.shape[1] - 1)[:, None]
    slope = rising.gather(1, piece)[:, 0].clamp(min=_TINY)
    level = (amount - stopped.gather(1, piece)[:, 0]) / slope
    return torch.where(inside, level, breaks[:, -1])


def _shifted(sums: Tensor) -> Tensor:
    """Cumulative sums without the element itself."""
    return torch.cat([torch.zeros_like(sums[:, :1]), sums[:, :-1]], dim=1)
