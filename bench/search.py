"""Which epsilon of the grid an example is tried at next, and what its tries have shown."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

Order = Literal["bisect", "ascend", "descend", "sweep"]


CLEAN: Literal["clean"] = "clean"
_APPROACH = 0.4  # of an attack's steps: as far as 2.5 / steps of epsilon each takes it to the rim
_PROBE = 0.25  # of an attack's steps, from where an earlier try ended


@dataclass(frozen=True)
class Try:
    """One try: a point of the grid, a restart, where to start, and how far to go.

    start: None for the attack's own start, CLEAN for the clean image, or where an earlier try
    ended, (C, H, W). share: the part of the attack's steps to take at most.
    """

    point: int
    restart: int
    start: Tensor | Literal["clean"] | None
    share: float = 1.0


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
    def decided(self) -> bool:
        """Whether every point is broken, or was given up after whole tries, there or above."""

    @property
    def broken(self) -> set[int]:
        """Points that are broken."""

    @property
    def images(self) -> dict[int, Tensor]:
        """Point -> the adversarial example that breaks it, and those above without one."""


@dataclass
class Descent:
    """What searches share that infer: whatever breaks one point breaks all above it.

    images, distance: the smallest adversarial perturbation found so far, at its point; to begin
    with, that of earlier attacks.
    """

    grid: tuple[float, ...]
    restarts: int
    images: dict[int, Tensor] = field(default_factory=dict)
    distance: float = float("inf")
    attacked: set[int] = field(default_factory=set)
    _restart: int = 0
    _current: int = -1
    _last: Tensor | None = None
    _spent: bool = False

    @property
    def high(self) -> int:
        """Smallest point broken, or the number of points."""
        return min(self.images, default=len(self.grid))

    @property
    def broken(self) -> set[int]:
        """Every point from the smallest broken one on."""
        return set(range(self.high, len(self.grid)))

    def _book(self, last: Tensor, found: Tensor | None, distance: float, *, spent: bool) -> bool:
        """Take in how a try ended; tell whether its point is broken."""
        self.attacked.add(self._current)
        self._spent = spent
        self._last = last if found is None else found
        if found is not None and distance < self.distance:
            self.distance = distance
            covered = [point for point, radius in enumerate(self.grid) if distance <= radius]
            self.images = {covered[0]: found} if covered else self.images
        return self.high <= self._current


@dataclass
class Bracket(Descent):
    """Whole tries, one point after another; a failure is taken to hold below as well.

    order: "bisect" halves what is undecided. "descend" takes the largest undecided point first.
    Both start where the last try ended. "ascend" is for attacks whose failures say nothing about
    smaller epsilons: every point up to the first broken one is tried from the attack's own start.
    "sweep" is for those under a query budget: down from the largest, every point, whatever fails.

    warm: whether to start where the last try ended; one long step from there is another attack.
    """

    order: Order = "bisect"
    warm: bool = True
    _low: int = -1

    def next(self) -> Try | None:
        """Return the next try, or None when every point is decided."""
        undecided = self._next_down() if self.order == "sweep" else self.high - self._low - 2
        if self._spent or undecided < 0:
            return None
        if self._restart == 0:
            self._current = {
                "bisect": (self._low + self.high) // 2,
                "ascend": self._low + 1,
                "descend": self.high - 1,
                "sweep": self._next_down(),
            }[self.order]
        warm = self.warm and self._restart == 0 and self.order != "ascend"
        return Try(self._current, self._restart, self._last if warm else None)

    def report(self, last: Tensor, found: Tensor | None, distance: float, *, spent: bool) -> None:
        """Lower the upper end to the norm found, or raise the lower end after the last restart."""
        if self._book(last, found, distance, spent=spent) or spent:
            self._restart = 0
        elif self._restart + 1 < self.restarts:
            self._restart += 1
        else:
            self._restart = 0
            self._low = self._current

    @property
    def decided(self) -> bool:
        """Whether no point is left that the budget kept from being tried."""
        if self.order == "sweep":
            return self._next_down() < 0
        return self.high - self._low <= 1

    def _next_down(self) -> int:
        """Return the largest point not broken and below the last failure of a sweep, or -1."""
        return min(self.high, self._low if self._low >= 0 else self.high) - 1


@dataclass
class Narrowing(Descent):
    """Come near cheaply, then spend the full budget only just below.

    The first try approaches the rim of the largest ball from the clean image, and is likely to
    cross the boundary near its smallest perturbation. Probes, a quarter of the steps each, follow
    it down from where the last try ended. Then the point just below the smallest broken one is
    tried with all steps and restarts from the attack's own start, just as an exhaustive search
    would. When that fails, the point and all below it count as robust; when it succeeds, probing
    goes on from there. Probes stride twice as far down after each success, whole tries from the
    second one on; both halve what is left after a failure, so that neither takes more than a few.
    """

    _phase: Literal["approach", "probe", "whole"] = "approach"
    _low: int = -1  # the largest point that a whole try failed at
    _stride: float | None = 0.5  # of whole tries, at least 1; None: halve what is between
    _probed: int = -1  # the largest point that a probe failed at, since the last whole try
    _probe_stride: float | None = 1

    def __post_init__(self) -> None:
        if self.images or len(self.grid) == 1:
            self._phase = "whole"

    def next(self) -> Try | None:
        """Return the next try, or None when every point is decided."""
        if self._spent or self.high - self._low <= 1:
            return None
        if self._phase == "approach":
            self._current = self.high - 1
            return Try(self._current, 0, CLEAN, _APPROACH)
        if self._phase == "probe":
            self._current = _below(self.high, max(self._low, self._probed), self._probe_stride)
            return Try(self._current, 0, self._last, _PROBE)
        if self._restart == 0:
            self._current = _below(self.high, self._low, self._stride)
        return Try(self._current, self._restart, None)

    @property
    def decided(self) -> bool:
        """Whether a whole try has failed just below the smallest broken point."""
        return self.high - self._low <= 1

    def report(self, last: Tensor, found: Tensor | None, distance: float, *, spent: bool) -> None:
        """Go on by the rules above."""
        broken = self._book(last, found, distance, spent=spent)
        if self._phase == "probe":
            self._probe_stride = 2 * self._probe_stride if broken and self._probe_stride else None
            self._probed = self._probed if broken else self._current
        elif self._phase == "whole" and broken:
            self._stride = 2 * self._stride if self._stride else None
            self._restart = 0
            self._probed, self._probe_stride = -1, 1
        elif self._phase == "whole" and self._restart + 1 < self.restarts:
            self._restart += 1
        elif self._phase == "whole":
            self._low, self._stride, self._restart = self._current, None, 0
        probing = self._phase == "probe" or broken
        undecided = self.high - max(self._low, self._probed) > 1
        self._phase = "probe" if probing and undecided else "whole"


def _below(high: int, low: int, stride: float | None) -> int:
    """Return a point between two others: a stride below the upper one, or halfway without one."""
    return max(high - max(int(stride), 1) if stride else (low + high) // 2, low + 1)


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

    @property
    def decided(self) -> bool:
        """Whether every point was tried: each has a budget of its own."""
        return self._point >= len(self.grid)

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
