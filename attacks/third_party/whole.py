"""What all third-party attacks share: groups of equal epsilon, seeds, budgets, and errors."""

import io
import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...bench.api.attack import Access, Problem
from ...bench.api.errors import CellError, errors_as
from ...bench.api.threat import Norm
from .stand_in import NotFinite, Spent, StandIn


@dataclass(frozen=True)
class Task:
    """What a library's attack is to do, in terms that all of them know.

    x: (b, C, H, W) in [0, 1]. y: (b,), the labels to leave or the classes to reach. epsilon: of all
    of them. seed: for attacks that take one; torch, NumPy and Python are seeded with it already.
    """

    x: Tensor
    y: Tensor
    epsilon: float
    norm: Norm
    targeted: bool
    n_classes: int
    seed: int


@dataclass(frozen=True)
class ThirdPartyAttack(ABC):
    """An attack of another library, run as a whole.

    name: the library's name for it. parameters: for its constructor, under the library's own names.
    release: of the library. minimum_norm: whether it looks for the nearest adversarial point.
    singly: whether it must be given one example at a time. monotone: whether failing at an epsilon
    tells that smaller ones fail too: not of a single step, nor of noise.

    Examples of one epsilon are attacked together, since libraries take one epsilon a call. What it
    returns is projected onto the ball, because libraries round outwards; the nearest adversarial
    point that it asked about on its way counts as well, as for every attack.

    Deviation from the other attacks here: its random numbers depend on the seed and the first
    example of the group, so its results may depend on the batch size and on who else is in the
    batch.
    """

    name: str
    parameters: Mapping[str, Any] = field(hash=False)
    release: str
    access: Access = "white-box"
    norms: tuple[Norm, ...] = ("Linf", "L2", "L1")
    targetable: bool = True
    minimum_norm: bool = False
    singly: bool = False
    monotone: bool = True

    @property
    def stays_in_ball(self) -> bool:
        """Not when the nearest point that it finds may lie outside."""
        return not self.minimum_norm

    @property
    @abstractmethod
    def title(self) -> str:
        """What people call it: the library's prefix and the name."""

    @abstractmethod
    def perturb(self, stand_in: StandIn, task: Task) -> Tensor:
        """(b, C, H, W): what the library makes of the task."""

    def run(self, problem: Problem) -> Tensor:
        """(B, C, H, W): a candidate for each example; the clean image where the budget ended.

        Raises: CellError when the library's code fails.
        """
        found = problem.x.clone()
        for rows in self._groups(problem):
            stand_in = StandIn(problem, rows, self.access)
            task = self._task(problem, rows)
            with errors_as(CellError, self.title):
                try:
                    with seeded(task.seed, found.device), quiet():
                        made = self.perturb(stand_in, task)
                except Spent:
                    continue
                except NotFinite:
                    seen = "images that are not finite"
                    raise CellError(f"{self.title} asked about {seen}") from None
            if not made.isfinite().all():
                raise CellError(f"{self.title} returned images that are not finite")
            found[rows] = made.detach().to(found)
        return found.clamp(0.0, 1.0) if self.minimum_norm else problem.ball.project(found)

    def _groups(self, problem: Problem) -> Iterator[Tensor]:
        """Yield rows that may be attacked in one call."""
        rows = torch.arange(len(problem.x), device=problem.x.device)
        if self.singly:
            yield from rows.split(1)
        elif self.minimum_norm:
            yield rows
        else:
            for epsilon in problem.epsilon.unique():
                yield rows[problem.epsilon == epsilon]

    def _task(self, problem: Problem, rows: Tensor) -> Task:
        return Task(
            problem.x[rows].clone(),
            problem.y[rows].clone(),
            float(problem.epsilon[rows].max()),
            problem.ball.norm,
            problem.targeted,
            problem.victim.n_classes,
            seed_of(problem, int(rows[0])),
        )


def seed_of(problem: Problem, row: int) -> int:
    """The seed of a group: a function of the run's seed and of its first example and restart."""
    draws = problem.draws.take(torch.tensor([row], device=problem.x.device))
    return int(draws.words(1, "foreign")[0, 0]) >> 1


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch, NumPy and Python within; put their generators back at the end."""
    numbers, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numbers)
            random.setstate(python)


@contextmanager
def quiet() -> Iterator[None]:
    """Within, what the library prints and warns of is kept to itself."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
