"""Carlini and Wagner's attack in Linf."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Problem
from ...bench.api.threat import Norm, measure, per_example
from ..parts.adam_moments import Moments
from ..parts.losses import Margin
from ..parts.parameters import at_least, positive, share
from ..parts.tanh_space import pulled_back, to_images, to_tanh_space


@dataclass
class CarliniWagnerLinfState:
    """x_adv: (B, C, H, W), the iterate. position: the same in the space of tanh.

    limit: (B,) float64, the tau of the paper. constant: (B,) float64. nearest: (B,) float64, the
    smallest norm found. found: (B,) bool, whether this round has found a smaller one. iteration:
    (B,) int64, steps of this round.
    """

    x_adv: Tensor
    position: Tensor
    moments: Moments
    limit: Tensor
    constant: Tensor
    nearest: Tensor
    found: Tensor
    iteration: Tensor


@dataclass(frozen=True)
class CarliniWagnerLinf:
    """Carlini and Wagner's Linf attack: Adam on what exceeds a limit, and the limit falls.

    Source: Carlini & Wagner 2017 (arXiv:1608.04644), section VI-C. The objective is the sum of
    max(|delta| - tau, 0) plus c * max(-margin, 0). A round ends when that is zero or after its
    share of the steps. When it has found a nearer adversarial point, tau falls to `decay` times the
    smaller of tau and the norm found; else c doubles. Every round goes on where the last one
    stopped, with fresh moments. The steps are counted over all rounds, where the paper goes on
    until tau is below 1/256 or c above 20. So that few steps do, c begins at 0.1 instead of 1e-5,
    and Adam's step size falls linearly to zero over all of them.

    steps, rounds, step_size: as in CarliniWagner. initial_constant, largest_constant: of c.
    """

    version: ClassVar[str] = "2"
    access: ClassVar[Access] = "white-box"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    stays_in_ball: ClassVar[bool] = False
    minimum_norm: ClassVar[bool] = True

    steps: int = 1000
    rounds: int = 10
    step_size: float = 0.1
    initial_constant: float = 0.1
    largest_constant: float = 20.0
    decay: float = 0.9

    def __post_init__(self) -> None:
        at_least(1, rounds=self.rounds)
        at_least(self.rounds, steps=self.steps)
        positive(
            step_size=self.step_size,
            initial_constant=self.initial_constant,
            largest_constant=self.largest_constant,
        )
        share(decay=self.decay)

    def start(self, problem: Problem) -> CarliniWagnerLinfState:
        """Begin at the clean image."""
        position = to_tanh_space(problem.x)
        ones = torch.ones_like(problem.epsilon)
        return CarliniWagnerLinfState(
            x_adv=to_images(position),
            position=position,
            moments=Moments.zero(position),
            limit=ones,
            constant=self.initial_constant * ones,
            nearest=torch.inf * ones,
            found=torch.zeros_like(problem.y, dtype=torch.bool),
            iteration=torch.zeros_like(problem.y),
        )

    def step(self, problem: Problem, state: CarliniWagnerLinfState) -> CarliniWagnerLinfState:
        """One step of Adam; a new round where one ends."""
        answer = problem.victim.gradient(
            state.x_adv, lambda logits: Margin()(logits, problem.y, targeted=problem.targeted)
        )
        delta = state.x_adv - problem.x
        distance, won = measure(delta, "Linf"), answer.loss > 0
        found = state.found | (won & (distance < state.nearest))
        nearest = torch.where(won, state.nearest.minimum(distance), state.nearest)
        over = delta.abs() > per_example(state.limit, delta).to(delta.dtype)
        weight = per_example(state.constant * ~won, delta).to(delta.dtype)
        slope = pulled_back(delta.sign() * over - weight * answer.gradient, state.x_adv)
        moments, step = state.moments.taken_in(slope, state.iteration)
        left = 1.0 - problem.step.double() / self.steps
        size = per_example(self.step_size * left, step).to(step.dtype)
        position = state.position - size * step
        settled = won & (distance <= state.limit)
        ends = settled | (state.iteration + 1 >= self.steps // self.rounds)
        lower = self.decay * state.limit.minimum(nearest)
        larger = (2.0 * state.constant).clamp(max=self.largest_constant)
        return CarliniWagnerLinfState(
            x_adv=to_images(position),
            position=position,
            moments=moments.forgotten(ends),
            limit=torch.where(ends & found, lower, state.limit),
            constant=torch.where(ends & ~found, larger, state.constant),
            nearest=nearest,
            found=found & ~ends,
            iteration=torch.where(ends, 0, state.iteration + 1),
        )
