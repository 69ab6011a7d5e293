"""Carlini and Wagner's attack in L2."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Problem
from ...bench.api.threat import Norm, per_example
from ..parts.adam_moments import Moments
from ..parts.losses import Margin
from ..parts.parameters import at_least, positive
from ..parts.penalty_search import ConstantSearch, Rounds
from ..parts.tanh_space import pulled_back, to_images, to_tanh_space


@dataclass
class CarliniWagnerL2State:
    """x_adv: (B, C, H, W), the iterate. position: the same in the space of tanh."""

    x_adv: Tensor
    position: Tensor
    moments: Moments
    search: ConstantSearch


@dataclass(frozen=True)
class CarliniWagnerL2:
    """Carlini and Wagner's L2 attack: Adam on |delta|^2 + c * max(-margin, 0), and a search for c.

    Source: Carlini & Wagner 2017 (arXiv:1608.04644), section VI-A, with f6 and confidence 0. Each
    round restarts at the clean image with another c: ten times the last one until one succeeds,
    then halfway between the largest that failed and the smallest that succeeded; of ten rounds or
    more, the last repeats the smallest that succeeded. No round is cut short. So that a few hundred
    steps a round do, instead of a thousand and more, Adam's step size falls linearly to zero over
    each, and c begins at 0.1 instead of 1e-3.

    steps, rounds, step_size: as in CarliniWagner. initial_constant: the first c.
    """

    version: ClassVar[str] = "1"
    access: ClassVar[Access] = "white-box"
    norms: ClassVar[tuple[Norm, ...]] = ("L2",)
    stays_in_ball: ClassVar[bool] = False
    minimum_norm: ClassVar[bool] = True

    steps: int = 1000
    rounds: int = 5
    step_size: float = 0.1
    initial_constant: float = 0.1

    def __post_init__(self) -> None:
        at_least(1, rounds=self.rounds)
        at_least(self.rounds, steps=self.steps)
        positive(step_size=self.step_size, initial_constant=self.initial_constant)

    def start(self, problem: Problem) -> CarliniWagnerL2State:
        """Begin at the clean image."""
        position = to_tanh_space(problem.x)
        search = ConstantSearch.open(problem.y, self.initial_constant)
        return CarliniWagnerL2State(to_images(position), position, Moments.zero(position), search)

    def step(self, problem: Problem, state: CarliniWagnerL2State) -> CarliniWagnerL2State:
        """One step of Adam, of a new round where one begins."""
        plan = Rounds(self.steps, self.rounds)
        iteration = plan.iteration(problem.step)
        search = plan.begun(state.search, problem.step)
        begins = iteration == 0
        fresh = per_example(begins, problem.x)
        position = torch.where(fresh, to_tanh_space(problem.x), state.position)
        x_adv = to_images(position)
        answer = problem.victim.gradient(
            x_adv, lambda logits: Margin()(logits, problem.y, targeted=problem.targeted)
        )
        search.found = search.found | (answer.loss > 0)
        weight = per_example(search.constant * (answer.loss <= 0), x_adv).to(x_adv.dtype)
        slope = pulled_back(2.0 * (x_adv - problem.x) - weight * answer.gradient, x_adv)
        moments, step = state.moments.forgotten(begins).taken_in(slope, iteration)
        left = 1.0 - iteration.double() / plan.length
        size = per_example(self.step_size * left.clamp(min=0.0), step).to(step.dtype)
        position = position - size * step
        return CarliniWagnerL2State(to_images(position), position, moments, search)
