"""Where the labels of points go, so that nothing is written over anything else."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_DIRECTIONS = 16
_DISTANCES = (5.0, 10.0, 17.0, 26.0, 38.0, 54.0)  # from the point to the label's nearest side


@dataclass(frozen=True)
class Box:
    """A rectangle, in the units of the page."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """The area that two share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


def around(x: float, y: float, width: float, height: float) -> Box:
    """The rectangle with a centre and a size."""
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def placed(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Iterable[Box],
    page: Box,
) -> list[tuple[float, float]]:
    """Centres of the labels of points, one after another where there is the most room.

    Each goes as near its point as it can without covering an obstacle, another label, or the edge
    of the page; where nothing is free it covers as little as possible.

    points: where they are. sizes: width and height of their labels. All in typographic points.
    """
    taken = list(obstacles)
    centres = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        tried = list(_candidates(x, y, width, height))
        costs = [_cost(around(*one, width, height), taken, page) for one in tried]
        best = min(range(len(tried)), key=lambda n: (round(costs[n], 3), n))  # nearest first
        centres.append(tried[best])
        taken.append(around(*tried[best], width, height))
    return centres


def _candidates(x: float, y: float, width: float, height: float) -> Iterable[tuple[float, float]]:
    """Centres of labels whose nearest side is ever farther from a point, in all directions."""
    for distance in _DISTANCES:
        for n in range(_DIRECTIONS):
            across = math.cos(2 * math.pi * n / _DIRECTIONS)
            up = math.sin(2 * math.pi * n / _DIRECTIONS)
            yield x + across * (distance + width / 2), y + up * (distance + height / 2)


def _cost(box: Box, taken: Iterable[Box], page: Box) -> float:
    outside = box.area - box.overlap(page)
    return 10.0 * outside + sum(box.overlap(one) for one in taken)
