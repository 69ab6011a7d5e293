"""Which epsilon of the grid an example is tried at next, and what its tries have shown."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

Order = Literal["bisect", "ascend", "descend"]


@dataclass(frozen=True)
class Try:
    """One try: a point of the grid and a restart, from the clean image or from an earlier try."""

    point: int
    restart: int
    start: Tensor | None


class Search(Protocol):
    """An example's way through the grid."""

    def next(self) -> Try | None:
        """Return the next try, or None when every point is decided."""

    def report(self, last: Tensor, found: Tensor | None, distance: float, *, spent: bool) -> None:
        """Say how the try ended.

        last: (C, H, W), its last iterate. found, distance: the nearest adversarial point that it
        asked about, if any. spent: the query budget is used up, nothing more can be tried.
        """

    @property
    def attacked(self) -> set[int]:
        """Points that were tried; the others are inferred."""

    @property
    def broken(self) -> set[int]:
        """Points that are broken."""

    @property
    def images(self) -> dict[int, Tensor]:
        """Point -> the adversarial example that breaks it, and those above without one."""


@dataclass
class Bracket:
    """Narrow down the smallest broken epsilon: what breaks one point breaks all above it.

    A try that fails with its full budget is taken to fail below as well. The next try starts where
    the last one ended, unless the order is "ascend", which is for attacks whose failures say
    nothing about smaller epsilons: every point up to the first broken one is tried afresh.

    images, distance: the smallest adversarial perturbation found by earlier attacks, at its point.
    """

    grid: tuple[float, ...]
    restarts: int
    order: Order
    images: dict[int, Tensor] = field(default_factory=dict)
    distance: float = float("inf")
    attacked: set[int] = field(default_factory=set)
    _low: int = -1
    _restart: int = 0
    _current: int = -1
    _last: Tensor | None = None
    _spent: bool = False

    @property
    def _high(self) -> int:
        return min(self.images, default=len(self.grid))

    def next(self) -> Try | None:
        """Return the next try, or None when every point is decided."""
        if self._spent or self._high - self._low <= 1:
            return None
        if self._restart == 0:
            self._current = {
                "bisect": (self._low + self._high) // 2,
                "ascend": self._low + 1,
                "descend": self._high - 1,
            }[self.order]
        warm = self._last if self._restart == 0 and self.order != "ascend" else None
        return Try(self._current, self._restart, warm)

    def report(self, last: Tensor, found: Tensor | None, distance: float, *, spent: bool) -> None:
        """Lower the upper end to the norm found, or raise the lower end after the last restart."""
        self.attacked.add(self._current)
        self._spent = spent
        self._last = last if found is None else found
        if found is not None and distance < self.distance:
            self.distance = distance
            covered = [point for point, radius in enumerate(self.grid) if distance <= radius]
            self.images = {covered[0]: found} if covered else self.images
        if self._high <= self._current:
            self._restart = 0
        elif self._restart + 1 < self.restarts:
            self._restart += 1
        else:
            self._restart = 0
            self._low = self._current

    @property
    def broken(self) -> set[int]:
        """Every point from the upper end on."""
        return set(range(self._high, len(self.grid)))


@dataclass
class Exhaustive:
    """Try every point on its own, from the clean image, and infer nothing."""

    grid: tuple[float, ...]
    restarts: int
    images: dict[int, Tensor] = field(default_factory=dict)
    attacked: set[int] = field(default_factory=set)
    _point: int = 0
    _restart: int = 0

    @property
    def broken(self) -> set[int]:
        """Points broken at their own epsilon."""
        return set(self.images)

    def next(self) -> Try | None:
        """Return the next restart, else the next point that is not broken yet."""
        while self._point in self.images:
            self._point += 1
        return Try(self._point, self._restart, None) if self._point < len(self.grid) else None

    def report(self, last: Tensor, found: Tensor | None, distance: float, *, spent: bool) -> None:
        """Go on to the next point when this one is broken or out of restarts or queries."""
        self.attacked.add(self._point)
        broken = found is not None and distance <= self.grid[self._point]
        if found is not None and broken:
            self.images[self._point] = found
        if not broken and not spent and self._restart + 1 < self.restarts:
            self._restart += 1
        else:
            self._restart = 0
            self._point += 1
