"""The fast minimum-norm attack."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Problem
from ...bench.api.threat import make_ball, measure, per_example, unit
from ..parts.linearised import DUAL
from ..parts.losses import Margin
from ..parts.minimum_norm import annealed, farthest
from ..parts.parameters import at_least, positive, share

_LAST = 0.01  # of the first step size
_LAST_GAMMA = 0.001
_BEYOND = 1.001


@dataclass
class FMNState:
    """x_adv: (B, C, H, W), the iterate.

    radius: (B,) float64, of the ball that it is held in. nearest: (B,) float64, the norm of the
    smallest adversarial perturbation so far, infinite before the first.
    """

    x_adv: Tensor
    radius: Tensor
    nearest: Tensor


@dataclass(frozen=True)
class FMN:
    """Fast minimum-norm attack: steps up the margin, in a ball that follows the boundary.

    Source: Pintor et al. 2021 (arXiv:2102.12827), algorithm 1, in Linf, L2 and L1. Until the first
    success the ball reaches to where the linearised margin is zero. Unlike there it reaches 0.1%
    farther, without which the iterates of a network that is linear stay just short, and it never
    shrinks before the first success but grows by `gamma` at least. From then on it shrinks by a
    part `gamma` where the iterate is adversarial and grows by it elsewhere. Both gamma and the step
    size, of a step along the gradient over its Euclidean length, fall along a cosine: to 0.001, and
    to a hundredth. Each iterate is projected onto the ball and [0, 1] as `Ball.project` does: in L1
    onto both at once, where the paper clips afterwards.

    Checked against Foolbox, adv-lib, and known distances on small networks.

    One gradient a step.

    steps: gradient steps. step_size: Euclidean length of the first. gamma: at first.

    It finds distances in any of the three norms, here in L1:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(
    ...     model, images, labels, "fmn", norm="L1", epsilons=[4.0], early_leaving=False
    ... )
    >>> result.records["distance"].round(1).tolist()
    [0.2, 0.3, 0.5, 0.6, 0.8, 1.0, 1.1, 1.3, 1.4, 1.6]
    """

    version: ClassVar[str] = "1"
    access: ClassVar[Access] = "white-box"
    stays_in_ball: ClassVar[bool] = False
    minimum_norm: ClassVar[bool] = True

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        positive(step_size=self.step_size)
        share(gamma=self.gamma)

    def start(self, problem: Problem) -> FMNState:
        """Begin at the clean image."""
        unknown = torch.full_like(problem.epsilon, torch.inf)
        return FMNState(problem.x, unknown, unknown)

    def step(self, problem: Problem, state: FMNState) -> FMNState:
        """Change the radius by what the iterate is, and step in the new ball."""
        norm = problem.ball.norm
        answer = problem.victim.gradient(
            state.x_adv, lambda logits: Margin()(logits, problem.y, targeted=problem.targeted)
        )
        won, distance = answer.loss > 0, measure(state.x_adv.double() - problem.x.double(), norm)
        nearest = torch.where(won, state.nearest.minimum(distance), state.nearest)
        gamma = annealed(problem.step, self.steps, self.gamma, _LAST_GAMMA)
        slope = measure(answer.gradient, DUAL[norm]).clamp(min=1e-30)
        expected = (distance + answer.loss.double().abs() / slope) * _BEYOND
        grown = state.radius * (1.0 + gamma)
        expected = torch.where(grown.isfinite(), expected.maximum(grown), expected)
        grown = torch.where(nearest.isfinite(), grown, expected)
        shrunk = (state.radius * (1.0 - gamma)).minimum(nearest)
        radius = torch.where(won, shrunk, grown).minimum(farthest(problem.x, norm))
        size = annealed(problem.step, self.steps, self.step_size, _LAST * self.step_size)
        direction = unit(answer.gradient)
        moved = state.x_adv + per_example(size, direction).to(direction.dtype) * direction
        return FMNState(make_ball(norm, problem.x, radius).project(moved), radius, nearest)
