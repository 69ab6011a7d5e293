"""Which epsilon of the grid an example is tried at next, and what its attempts have shown."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from torch import Tensor

Order = Literal["bisect", "ascend", "descend", "sweep"]
CLEAN: Literal["clean"] = "clean"

# Of a boundary search.
_SLOWEST = 0.4  # of the clean image's margin: when less has gone, proportion is a poor guide
_BEYOND = 2.0  # times a radius: a boundary expected farther out will not come nearer in time
_EASE = 0.5  # of a step's length, after each that failed just below what is broken
_PATIENCE = 4  # steps that fail just below what is broken, when the boundary is expected nearer
_STRIDE = 0.25  # in points, of full-budget attempts; doubled by each that succeeds, at least 1


@dataclass(frozen=True)
class Attempt:
    """One attempt: a point of the grid, a restart, where to start, and whether to go all the way.

    start: None for the attack's own start, CLEAN for the clean image, or where an earlier attempt
    ended, (C, H, W). single_step: take one long step instead of all, and do not ask where it led.
    ease: part of the long step's length to take. enough: the point that ends the attempt once it is
    broken; None: its own.
    """

    point: int
    restart: int
    start: Tensor | Literal["clean"] | None
    single_step: bool = False
    ease: float = 1.0
    enough: int | None = None


@dataclass
class Search(ABC):
    """An example's way through the grid, attempt by attempt.

    images: point -> the adversarial example that breaks it, and those above without one. attacked:
    points that were tried; the others are inferred.
    """

    grid: tuple[float, ...]
    restarts: int
    _: KW_ONLY
    images: dict[int, Tensor] = field(default_factory=dict)
    attacked: set[int] = field(default_factory=set)
    _restart: int = 0
    _current: int = -1  # the point of the attempt under way
    _spent: bool = False

    def next(self) -> Attempt | None:
        """Return the next attempt, or None when nothing more can or need be tried."""
        return None if self._spent or self.decided else self._next()

    def report(
        self,
        last: Tensor,
        found: Tensor | None,
        distance: float,
        *,
        spent: bool,
        margin: float = math.nan,
    ) -> None:
        """Say how the attempt ended.

        last: (C, H, W), its last iterate. found, distance: the nearest adversarial point that it
        asked about, if any. spent: the query budget is used up, nothing more can be tried.
        margin: how far the attack was from its goal when it asked last, in logits; NaN: unknown.
        """
        self.attacked.add(self._current)
        self._spent = spent
        self._proceed(last, found, distance, margin)

    @property
    @abstractmethod
    def decided(self) -> bool:
        """Whether every point is broken, or failed full-budget attempts, there or above."""

    @property
    @abstractmethod
    def broken(self) -> set[int]:
        """Points that are broken."""

    @abstractmethod
    def _next(self) -> Attempt:
        """The next attempt, where there is one."""

    @abstractmethod
    def _proceed(self, last: Tensor, found: Tensor | None, distance: float, margin: float) -> None:
        """Take in how an attempt ended, and choose what is next."""

    def _restarts_again(self) -> bool:
        """Count the restart that failed; tell whether there is another, or begin from the first."""
        self._restart = (self._restart + 1) % self.restarts
        return self._restart > 0


@dataclass
class Descent(Search):
    """What searches share that infer: whatever breaks one point breaks all above it.

    before: the smallest point that earlier attacks have broken. distance: norm of the smallest
    adversarial perturbation known; to begin with, theirs. images: a smaller one, at its point.
    """

    before: int | None = None
    distance: float = float("inf")
    _last: Tensor | None = None
    _low: int = -1  # the largest point that a full-budget attempt failed at

    @property
    def high(self) -> int:
        """Smallest point broken, or the number of points."""
        before = len(self.grid) if self.before is None else self.before
        return min(self.images, default=before)

    @property
    def broken(self) -> set[int]:
        """Every point from the smallest broken one on."""
        return set(range(self.high, len(self.grid)))

    @property
    def decided(self) -> bool:
        """Whether a full-budget attempt has failed just below the smallest broken point."""
        return self.high - self._low <= 1

    def _record(self, last: Tensor, found: Tensor | None, distance: float) -> bool:
        """Take in what an attempt has found; tell whether its point is broken."""
        self._last = last if found is None else found
        if found is not None and distance < self.distance:
            self.distance = distance
            covered = bisect_left(self.grid, distance)
            self.images = {covered: found} if covered < len(self.grid) else self.images
        return self.high <= self._current


@dataclass
class Bracket(Descent):
    """Full-budget attempts, one point after another; a failure is taken to hold below as well.

    order: "bisect" halves what is undecided. "descend" takes the largest undecided point first.
    Both start where the last attempt ended. "ascend" is for attacks whose failures say nothing
    about smaller epsilons: every point up to the first broken one is tried from the attack's own
    start. "sweep" is for those under a query budget: down from the largest, every point, whatever
    fails.

    warm: whether to start where the last attempt ended; a single step from there is another attack.
    """

    order: Order = "bisect"
    warm: bool = True

    def _next(self) -> Attempt:
        if self._restart == 0:
            self._current = {
                "bisect": (self._low + self.high) // 2,
                "ascend": self._low + 1,
                "descend": self.high - 1,
                "sweep": self._next_down(),
            }[self.order]
        warm = self.warm and self._restart == 0 and self.order != "ascend"
        return Attempt(self._current, self._restart, self._last if warm else None)

    def _proceed(self, last: Tensor, found: Tensor | None, distance: float, margin: float) -> None:
        """Lower the upper end to the norm found, or raise the lower end after the last restart."""
        if self._record(last, found, distance) or self._spent:
            self._restart = 0
        elif not self._restarts_again():
            self._low = self._current

    @property
    def decided(self) -> bool:
        """Whether no point is left that the budget kept from being tried."""
        return self._next_down() < 0 if self.order == "sweep" else super().decided

    def _next_down(self) -> int:
        """Return the largest point not broken and below the last failure of a sweep, or -1."""
        return min(self.high, self._low if self._low >= 0 else self.high) - 1


@dataclass
class BoundarySearch(Descent):
    """Walk to the boundary, then spend the full budget only just below it.

    A boundary search takes single long steps. Each starts where the last one led, scaled to fill
    the ball of another point: the smallest at which the attack's goal would be reached if the lead
    of the label's logit fell in proportion to the distance (a secant step, in the spirit of
    DeepFool, arXiv:1511.04599), but always below what is broken. Each that fails just below halves
    the next one's length; a few such failures end the boundary search. Then the point just below
    the smallest broken one is tried with all steps and restarts from the attack's own start, just
    as an exhaustive search would. When that fails, the point and all below it count as robust; when
    it succeeds, the walk goes on from there. From the third success on, full-budget attempts stride
    twice as far down each time, and after a failure they halve what is left, so that they are never
    many, however poor a guide the boundary search is.

    probe_steps: steps that a boundary search may take.
    """

    probe_steps: int = 10
    _single_stepping: bool = True
    _stride: float | None = _STRIDE  # None: halve what is between
    _taken: int = 0  # steps of this walk
    _idle: int = 0  # of these, the last ones that failed just below what is broken
    _margin: float = math.nan  # at the clean image
    _aim: float = math.inf  # distance at which the boundary is expected

    def __post_init__(self) -> None:
        self._single_stepping = self.before is None and len(self.grid) > 1

    def _next(self) -> Attempt:
        if self._single_stepping:
            aimed = bisect_left(self.grid, self._aim)
            self._current = max(self._low + 1, min(aimed, self.high - 1))
            start = CLEAN if self._last is None else self._last
            return Attempt(self._current, 0, start, single_step=True, ease=_EASE**self._idle)
        if self._restart == 0:
            halfway = (self._low + self.high) // 2
            below = self.high - max(int(self._stride), 1) if self._stride else halfway
            self._current = max(below, self._low + 1)
        return Attempt(self._current, self._restart, None)

    def _proceed(self, last: Tensor, found: Tensor | None, distance: float, margin: float) -> None:
        """Go on by the rules above."""
        first, lowest = self._last is None, self.high - 1
        broken = self._record(last, found, distance)
        if self._single_stepping:
            self._last = last
            self._taken += 1
            if first:  # it asked about the clean image
                self._margin = margin
                self._aim = self.grid[lowest // 2] if margin > 0 else math.inf
            else:
                self._learn(margin, failed=not broken and self._current == lowest)
            self._single_stepping = self._taken < self.probe_steps and self._idle < _PATIENCE
        elif broken or not self._restarts_again():
            self._decide(broken=broken)

    def _learn(self, margin: float, *, failed: bool) -> None:
        """Aim again after a single step. failed: just below what is broken."""
        radius = self.grid[self._current]
        if self._margin > 0:
            gone = max(self._margin - margin, _SLOWEST * self._margin)
            self._aim = radius * self._margin / gone
        if not failed:
            self._idle = 0
        else:
            self._idle += _PATIENCE if self._aim > _BEYOND * radius else 1

    def _decide(self, *, broken: bool) -> None:
        """Take in how the full-budget attempts at a point ended, and search again."""
        if broken:
            self._stride = 2 * self._stride if self._stride else None
        else:
            self._low, self._stride = self._current, None
        self._single_stepping, self._taken, self._idle, self._restart = True, 0, 0, 0
        self._aim = math.inf


@dataclass
class MinimumNormSearch(Descent):
    """One attempt with each restart for the whole grid: for minimum-norm attacks.

    It goes on until the smallest point is broken, whatever was found on the way. What is left below
    the nearest adversarial example counts as robust.
    """

    _done: int = 0  # restarts

    def _next(self) -> Attempt:
        """The next restart, in the largest ball that is not broken yet."""
        self._current = self.high - 1
        return Attempt(self._current, self._done, None, enough=0)

    @property
    def decided(self) -> bool:
        """Whether every restart was made or the smallest point is broken."""
        return self.high == 0 or self._done >= self.restarts

    def _proceed(self, last: Tensor, found: Tensor | None, distance: float, margin: float) -> None:
        """Keep the nearest adversarial example; all that was below the ball has been tried."""
        self.attacked.update(range(self._current))
        self._record(last, found, distance)
        self._done += 1


@dataclass
class Exhaustive(Search):
    """Try every point on its own, from the clean image, and infer nothing.

    before: points that earlier attacks have broken. shared: whether the points share a query
    budget; then the largest is tried first, and none after the budget is spent.
    """

    before: frozenset[int] = frozenset()
    shared: bool = False
    _failed: set[int] = field(default_factory=set)

    @property
    def broken(self) -> set[int]:
        """Points broken at their own epsilon."""
        return {*self.before, *self.images}

    @property
    def _left(self) -> list[int]:
        done = self.broken | self._failed
        return [point for point in range(len(self.grid)) if point not in done]

    @property
    def decided(self) -> bool:
        """Whether every point was tried, as far as it was not broken before."""
        return not self._left

    def _next(self) -> Attempt:
        """The next restart, else the next point that is not broken yet."""
        self._current = self._left[-1 if self.shared else 0]
        return Attempt(self._current, self._restart, None)

    def _proceed(self, last: Tensor, found: Tensor | None, distance: float, margin: float) -> None:
        """Go on to the next point when this one is broken or out of restarts or queries."""
        spent, self._spent = self._spent, self._spent and self.shared
        if found is not None and distance <= self.grid[self._current]:
            self.images[self._current] = found
            self._restart = 0
        elif not self._spent and (spent or not self._restarts_again()):
            self._restart = 0
            self._failed.add(self._current)
