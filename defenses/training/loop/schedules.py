"""Learning rate schedules: the part of the peak rate to use at each step of training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

ScheduleName = Literal["one-cycle", "cosine", "step", "plateau", "constant"]


class Schedule(Protocol):
    """The learning rate as a factor of its peak."""

    def factor(self, progress: float) -> float:
        """The factor, over 0 to 1, when `progress` (over 0 to 1) of all steps are done."""

    def validated(self, loss: float) -> None:
        """Take note of the validation loss at the end of an epoch."""


@dataclass
class Constant:
    """The same rate throughout."""

    def factor(self, progress: float) -> float:
        """Return 1."""
        return 1.0

    def validated(self, loss: float) -> None:
        """Change nothing."""


@dataclass
class OneCycle:
    """Up in a straight line, down along half a cosine to nothing (Smith & Topin, arXiv:1708.07120).

    up: the part of training on the way up. Momentum stays as it is, where the paper lowers it while
    the rate is high. With `up` 0 it is cosine annealing (Loshchilov & Hutter, arXiv:1608.03983)
    without restarts.
    """

    up: float = 0.25

    def factor(self, progress: float) -> float:
        """Follow the cycle."""
        if progress < self.up:
            return progress / self.up
        return 0.5 * (1.0 + math.cos(math.pi * (progress - self.up) / (1.0 - self.up)))

    def validated(self, loss: float) -> None:
        """Change nothing."""


@dataclass
class Step:
    """Divide at given moments, as ResNet was trained (He et al. 2015, arXiv:1512.03385, 4.2).

    milestones: shares of all epochs after which the rate is divided. divisor: by how much.
    """

    milestones: Sequence[float]
    divisor: float

    def factor(self, progress: float) -> float:
        """Return 1 over the divisor for each milestone passed."""
        return float(self.divisor ** -sum(progress >= one for one in self.milestones))

    def validated(self, loss: float) -> None:
        """Change nothing."""


@dataclass
class Plateau:
    """Divide by 10 when validation stops improving, as AlexNet was trained (Krizhevsky 2012, 5).

    patience: validations in a row without a lower loss that make a plateau. The paper watched the
    error rate, by eye; the loss is less coarse on a small validation part.
    """

    patience: int
    _factor: float = field(default=1.0, init=False)
    _best: float = field(default=math.inf, init=False)
    _waited: int = field(default=0, init=False)

    def factor(self, progress: float) -> float:
        """Return 1, 0.1, 0.01, ..."""
        return self._factor

    def validated(self, loss: float) -> None:
        """Count how long the loss has not fallen; divide when it is too long."""
        if loss < self._best:
            self._best, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited >= self.patience:
            self._factor, self._waited = self._factor / 10.0, 0


def make_schedule(
    name: ScheduleName,
    *,
    patience: int = 3,
    rate_warmup: float = 0.0,
    milestones: Sequence[float] = (0.5, 0.75),
    divisor: float = 10.0,
) -> Schedule:
    """Begin a schedule: each takes of the settings what it needs."""
    made: dict[ScheduleName, Schedule] = {
        "one-cycle": OneCycle(),
        "cosine": OneCycle(up=rate_warmup),
        "step": Step(milestones, divisor),
        "plateau": Plateau(patience),
        "constant": Constant(),
    }
    return made[name]
