"""An attack and its victim with a watch between them; to the engine, an attack like any other."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...api.attack import Access, Answer, Problem, SurrogateGradient
from .recorder import CallRecorder, Stop
from .states import state_fault

_READ_BY_ENGINE = {"version", "norms", "targetable", "monotone", "asks_iterates"}
_READ_BY_ENGINE |= {"minimum_norm", "attempts_per_restart", "boundary_search", "step_multiplier"}
_PATIENCE = 2000  # questions after the budget, within one step, that count as hanging


class WatchedVictim:
    """The engine's victim, with every question counted a second time."""

    def __init__(self, problem: Problem, recorder: CallRecorder) -> None:
        self.examples = problem.draws.example
        self._victim = problem.victim
        self._recorder = recorder
        self._in_vain = 0

    @property
    def remaining(self) -> Tensor:
        """(B,) int64: queries that each example may still ask."""
        return self._victim.remaining

    def gradient(
        self,
        x: Tensor,
        objective: Callable[[Tensor], Tensor],
        surrogate: SurrogateGradient | None = None,
        setting: Tensor | None = None,
    ) -> Answer:
        """Ask for a gradient."""
        able = (self.remaining > 0).tolist()
        self._lose_patience()
        with self._recorder.asking(self.examples, self.remaining, x, None):
            answer = self._victim.gradient(x, objective, surrogate, setting)
        for example, one in zip(self.examples.tolist(), able, strict=True):
            self._recorder.backward[example] += one
        if answer.loss.shape != (len(x),):
            seen = tuple(answer.loss.shape)
            self._recorder.fault("shape", f"the objective is of shape {seen}, expected ({len(x)},)")
        return answer

    def differentiable(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Ask for logits with their graph."""
        owners = torch.arange(len(self.examples)) if rows is None else rows
        admitted = torch.bincount(owners, minlength=len(self.examples)).minimum(self.remaining)
        self._lose_patience()
        with self._recorder.asking(self.examples, self.remaining, x, rows):
            logits = self._victim.differentiable(x, rows)

        def count(gradient: Tensor) -> None:
            for example, times in zip(self.examples.tolist(), admitted.tolist(), strict=True):
                self._recorder.backward[example] += times

        if logits.requires_grad:
            logits.register_hook(count)
        return logits

    def scores(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Ask for logits."""
        self._lose_patience()
        with self._recorder.asking(self.examples, self.remaining, x, rows):
            return self._victim.scores(x, rows)

    def labels(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Ask for classes."""
        self._lose_patience()
        with self._recorder.asking(self.examples, self.remaining, x, rows):
            return self._victim.labels(x, rows)

    def _lose_patience(self) -> None:
        self._in_vain += not bool((self.remaining > 0).any())
        if self._in_vain > _PATIENCE:
            raise Stop(f"{_PATIENCE} questions in one step after the query budget was spent")

    def __getattr__(self, name: str) -> Any:
        """Give away whatever else the victim has, to see whether an attack reaches for it."""
        return getattr(self._victim, name)


@dataclass(frozen=True)
class _Watched:
    """An attack under watch. Only what the engine reads shows through."""

    attack: Any
    recorder: CallRecorder

    @property
    def access(self) -> Access:
        """The attack's."""
        level: Access = self.attack.access
        return level

    def __getattr__(self, name: str) -> Any:
        if name in _READ_BY_ENGINE:
            return getattr(self.attack, name)
        raise AttributeError(name)


@dataclass(frozen=True)
class WatchedSteps(_Watched):
    """An attack of start and step, under watch."""

    @property
    def steps(self) -> int:
        """The attack's."""
        return int(self.attack.steps)

    def start(self, problem: Problem) -> Any:
        """Begin, and look at the result."""
        return self._checked(problem, None, self.attack.start, 0)

    def step(self, problem: Problem, state: Any) -> Any:
        """Advance, and look at the result."""
        done = int(problem.step.max()) + 1
        return self._checked(problem, state, lambda one: self.attack.step(one, state), done)

    def _checked(self, problem: Problem, state: Any, act: Any, done: int) -> Any:
        with self.recorder.working(problem, state):
            result = act(replace(problem, victim=WatchedVictim(problem, self.recorder)))
        fault = state_fault(result, len(problem.x))
        if fault:
            self.recorder.stop("shape", fault)
        self.recorder.check_point(problem, result.x_adv, done, begins=done == 0)
        return result


@dataclass(frozen=True)
class WatchedWhole(_Watched):
    """A whole attack, under watch."""

    def run(self, problem: Problem) -> Tensor:
        """Run, and look at the result."""
        with self.recorder.working(problem, None):
            x_adv: Tensor = self.attack.run(
                replace(problem, victim=WatchedVictim(problem, self.recorder))
            )
        self.recorder.check_point(problem, x_adv, 1, begins=True)
        return x_adv
