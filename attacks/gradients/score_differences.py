"""Gradients from pairs of probes: from the victim's scores at two points around x.

Probes are images: where one would leave [0, 1] it stops at the border.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ...bench.api.attack import Loss, Problem

PROBES_AT_ONCE = 1 << 22
"""Numbers held in one batch of probes: 16 MiB."""
DRAWN_AT_ONCE = 1 << 15  # numbers of one draw for each example; part of what names a number


def differences(problem: Problem, probes: Tensor, loss: Loss) -> Tensor:
    """(B, n): the loss at the first probe of each pair less that at the second.

    probes: (B, n, 2, D). Subtracted in float64. NaN where the query budget left a probe unanswered:
    then the example leaves after the step.
    """
    batch, count = probes.shape[:2]
    return (
        -losses_at(problem, probes.flatten(1, 2), loss).reshape(batch, count, 2).diff(dim=2)[..., 0]
    )


def losses_at(problem: Problem, probes: Tensor, loss: Loss) -> Tensor:
    """(B, n) float64: the loss at each probe of (B, n, D), NaN where it was not answered."""
    batch, count = probes.shape[:2]
    rows = torch.arange(batch, device=probes.device).repeat_interleave(count)
    images = probes.reshape(-1, *problem.x.shape[1:])
    values = loss(problem.victim.scores(images, rows), problem.y[rows], targeted=problem.targeted)
    return values.double().reshape(batch, count)


def along_random(
    problem: Problem,
    x: Tensor,
    loss: Loss,
    pairs: int,
    reach: float,
    draw: Callable[[tuple[int, int], str], Tensor],
) -> Tensor:
    """(B, D): the mean over drawn directions u of (L(x + reach u) - L(x - reach u)) u.

    draw: (n, D) and a stream's name -> (B, n, D) directions.
    """
    flat = x.flatten(1)

    def rises(directions: Tensor) -> Tensor:
        return differences(problem, _around(flat, reach * directions), loss)

    return _weighted_mean(flat, pairs, draw, rises, sides=2)


def along_random_one_sided(
    problem: Problem,
    x: Tensor,
    loss: Loss,
    count: int,
    reach: float,
    draw: Callable[[tuple[int, int], str], Tensor],
) -> Tensor:
    """(B, D): the mean over drawn directions u of (L(x + reach u) - L(x)) u.

    draw: (n, D) and a stream's name -> (B, n, D) directions.
    """
    flat = x.flatten(1)
    here = losses_at(problem, flat[:, None], loss)

    def rises(directions: Tensor) -> Tensor:
        probes = (flat[:, None] + reach * directions).clamp_(0.0, 1.0)
        return losses_at(problem, probes, loss) - here

    return _weighted_mean(flat, count, draw, rises, sides=1)


def _weighted_mean(
    flat: Tensor,
    count: int,
    draw: Callable[[tuple[int, int], str], Tensor],
    rises: Callable[[Tensor], Tensor],
    sides: int,
) -> Tensor:
    """(B, D): the mean of drawn directions (B, n, D), weighted by what `rises` (B, n) says of them.

    sides: probes that each direction takes.
    """
    batch, total = flat.shape
    estimate = torch.zeros_like(flat)
    drawn = max(1, DRAWN_AT_ONCE // total)
    draws = range(0, count, drawn)
    together = max(1, PROBES_AT_ONCE // (sides * batch * total * drawn))
    for begin in range(0, len(draws), together):
        directions = torch.cat(
            [
                draw((min(drawn, count - first), total), f"directions from {first}")
                for first in draws[begin : begin + together]
            ],
            dim=1,
        )
        weighted = directions * rises(directions).to(flat.dtype)[..., None]
        for one in weighted.unbind(dim=1):  # in this order, however many are asked together
            estimate += one
    return estimate / count


def _around(flat: Tensor, moves: Tensor) -> Tensor:
    """(B, n, 2, D): flat (B, D) plus and minus moves (B, n, D), in [0, 1]."""
    batch, count, total = moves.shape
    probes = flat.new_empty(batch, count, 2, total)
    torch.add(flat[:, None], moves, out=probes[:, :, 0])
    torch.sub(flat[:, None], moves, out=probes[:, :, 1])
    return probes.clamp_(0.0, 1.0)
