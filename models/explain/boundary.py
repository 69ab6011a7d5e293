"""How far the decision boundary is along a direction.

Source of the comparison of adversarial and random directions: Fawzi, Moosavi-Dezfooli & Frossard
2016, "Robustness of classifiers: from adversarial to random noise", arXiv:1608.08967.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...bench.api.errors import BadData, BadParameter
from ...bench.api.rng import Draws
from .layers import read

_NEAREST, _POINTS = 1e-3, 48  # of the way to the end of the box; how many are looked at
_HALVINGS = 20


@dataclass(frozen=True)
class BoundaryDistances:
    """How far each of B images can go before its predicted class changes.

    distance: (B,), L2 in units of x; where `censored` is true, the distance at which the box ended,
    and the boundary is farther. reached: (B,) int64, the class on the other side; -1 there.
    """

    distance: Tensor
    censored: Tensor
    reached: Tensor

    @property
    def median(self) -> float:
        """The median distance; infinite where the box ended first for half of the images or more.

        Exact as long as less than half are censored, since each of them is farther than the median
        or ended before it; those that ended before it make it a lower bound.
        """
        ordered = torch.where(self.censored, torch.inf, self.distance).sort().values
        return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2

    @property
    def censored_share(self) -> float:
        """The share of the images for which the box ended first, in [0, 1]."""
        return float(self.censored.double().mean())


def boundary_distances(
    model: nn.Module, x: Tensor, directions: Tensor, *, batch_size: int = 512
) -> BoundaryDistances:
    """Go from each image along its direction until the predicted class changes.

    x: (B, C, H, W) in [0, 1]. directions: (B, C, H, W), of any length but zero. The way is
    clip(x + t d, 0, 1), since a real image has pixels at 0 or 1, where a straight line would end at
    once; the distance is the length of what was really added. It ends where every pixel that moves
    has met the box. 48 points from a thousandth of the way to its end, each 1.16 times as far as
    the one before, are looked at; the first interval with a change is halved 20 times. A class that
    comes and goes within one interval is missed.

    Raises: BadData for directions of another shape or length zero, or images outside the box.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    >>> x = torch.tensor([0.6, 0.4, 0.5, 0.5]).reshape(1, 1, 2, 2)
    >>> towards = torch.tensor([-1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    >>> found = boundary_distances(model, x, towards)
    >>> round(float(found.distance), 4), found.reached.tolist(), found.censored.tolist()
    (0.1414, [1], [False])
    """
    if x.shape != directions.shape:
        raise BadData(f"directions {tuple(directions.shape)} for images {tuple(x.shape)}")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise BadData("images must lie in [0, 1]")
    if not bool((directions.flatten(1).norm(dim=1) > 0).all()):
        raise BadData("a direction has length zero")
    found = [
        _Path(model, x[rows], directions[rows]).search()
        for rows in torch.arange(len(x), device=x.device).split(batch_size)
    ]
    return BoundaryDistances(*(torch.cat(one) for one in zip(*found, strict=True)))


class _Path:
    """From images along directions, until each pixel that moves has met the box."""

    def __init__(self, model: nn.Module, x: Tensor, directions: Tensor) -> None:
        self.model, self.x, self.directions = model, x, directions
        walls = (directions > 0).to(x)
        room = torch.where(directions == 0, 0.0, (walls - x) / directions)
        self.end = room.flatten(1).amax(dim=1)

    def at(self, t: Tensor) -> Tensor:
        """(B,) -> (B, C, H, W)."""
        moved = self.x + t[:, None, None, None] * self.directions
        return moved.clamp(0.0, 1.0)

    def classes(self, t: Tensor) -> Tensor:
        """(B,) -> (B,): what is predicted there."""
        return read(self.model, self.at(t), [])[0].argmax(dim=1)

    @torch.no_grad()
    def search(self) -> tuple[Tensor, Tensor, Tensor]:
        """distance, censored and reached, (B,) each."""
        start = self.classes(torch.zeros_like(self.end))
        low, high = torch.zeros_like(self.end), torch.full_like(self.end, torch.inf)
        reached = torch.full_like(start, -1)
        for exponent in torch.linspace(math.log(_NEAREST), 0.0, _POINTS).tolist():
            searching = high.isinf()
            t = self.end * math.exp(exponent)
            there = self.classes(t)
            changed = searching & (there != start)
            high, reached = torch.where(changed, t, high), torch.where(changed, there, reached)
            low = torch.where(searching & ~changed, t, low)
            if not bool(high.isinf().any()):
                break
        censored = high.isinf()
        high = torch.where(censored, self.end, high)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            there = self.classes(middle)
            changed = ~censored & (there != start)
            high, reached = torch.where(changed, middle, high), torch.where(changed, there, reached)
            low = torch.where(changed, low, middle)
        distance = (self.at(high) - self.x).flatten(1).norm(dim=1)
        return distance, censored, reached


def random_directions(x: Tensor, seed: int = 0) -> Tensor:
    """Uniform on the sphere, an image's own whatever the batch: (B, C, H, W) of L2 norm 1.

    >>> directions = random_directions(torch.rand(2, 3, 4, 4))
    >>> directions.shape, directions.flatten(1).norm(dim=1).round(decimals=5)
    (torch.Size([2, 3, 4, 4]), tensor([1., 1.]))
    """
    rows = torch.arange(len(x))
    zeros = torch.zeros_like(rows)
    drawn = Draws(seed, rows, zeros, zeros).normal(x.shape[1:], "directions").to(x)
    length: Tensor = drawn.flatten(1).norm(dim=1)
    return drawn / length[:, None, None, None]


def directions_to_other_classes(
    x: Tensor, classes: Tensor, others: Tensor, other_classes: Tensor
) -> Tensor:
    """From each image to the nearest of the others, in L2, that has another class: (B, C, H, W).

    x: (B, C, H, W), classes: (B,), others: (N, C, H, W), other_classes: (N,).

    Raises: BadParameter where all the others are of an image's class.

    >>> x, others = torch.zeros(1, 1, 1, 2), torch.eye(2).reshape(2, 1, 1, 2)
    >>> directions_to_other_classes(x, torch.tensor([0]), others, torch.tensor([0, 1])).flatten()
    tensor([0., 1.])
    """
    distances = torch.cdist(x.flatten(1), others.flatten(1))
    distances = distances.masked_fill(classes[:, None] == other_classes[None], torch.inf)
    nearest = distances.min(dim=1)
    if bool(nearest.values.isinf().any()):
        raise BadParameter("no image of another class is among the others")
    return others[nearest.indices] - x
