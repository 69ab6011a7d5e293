"""Decoupled direction and norm."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Loss, Problem
from ...bench.api.threat import Norm, measure, per_example, unit
from ..parts.losses import CrossEntropy, Margin
from ..parts.minimum_norm import annealed, farthest
from ..parts.parameters import at_least, positive, share

_STEP_SIZES = 1.0, 0.01  # first and last


@dataclass
class DDNState:
    """x_adv: (B, C, H, W), the iterate. radius: (B,) float64, of the sphere that it is on."""

    x_adv: Tensor
    radius: Tensor


@dataclass(frozen=True)
class DDN:
    """Decoupled direction and norm: a step up the loss, back to a sphere that shrinks or grows.

    Source: Rony et al. 2019 (arXiv:1811.09600), algorithm 1. The sphere shrinks by `gamma` where
    the iterate is adversarial and grows by it elsewhere, up to the farthest corner of [0, 1]. Step
    sizes fall from 1 to 0.01 along a cosine. Iterates are not rounded to 8 bits, as in Foolbox;
    where the gradient is exactly zero the direction is random.

    Checked against Foolbox, adv-lib, and known distances on small networks.

    One gradient a step.

    steps: gradient steps. gamma: by which part the radius changes. initial_radius: of the sphere.
    loss: what grows.

    Without `early_leaving=False` an example leaves once it is broken at the smallest epsilon:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(
    ...     model, images, labels, "ddn", norm="L2", epsilons=[1.0], early_leaving=False
    ... )
    >>> result.records["distance"].round(2).tolist()
    [0.04, 0.08, 0.12, 0.16, 0.2, 0.24, 0.28, 0.32, 0.36, 0.4]
    """

    version: ClassVar[str] = "1"
    access: ClassVar[Access] = "white-box"
    norms: ClassVar[tuple[Norm, ...]] = ("L2",)
    stays_in_ball: ClassVar[bool] = False
    minimum_norm: ClassVar[bool] = True

    steps: int = 100
    gamma: float = 0.05
    initial_radius: float = 1.0
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        share(gamma=self.gamma)
        positive(initial_radius=self.initial_radius)

    def start(self, problem: Problem) -> DDNState:
        """Begin at the clean image."""
        return DDNState(problem.x, torch.full_like(problem.epsilon, self.initial_radius))

    def step(self, problem: Problem, state: DDNState) -> DDNState:
        """Change the radius by what the iterate is, and step on the new sphere."""
        answer = problem.victim.gradient(
            state.x_adv, lambda logits: self.loss(logits, problem.y, targeted=problem.targeted)
        )
        won = Margin()(answer.logits, problem.y, targeted=problem.targeted) > 0
        factor = torch.where(won, 1.0 - self.gamma, 1.0 + self.gamma)
        radius = (state.radius * factor).minimum(farthest(problem.x, "L2"))
        size = annealed(problem.step, self.steps, *_STEP_SIZES)
        direction = _somewhere(problem, unit(answer.gradient)).double()
        delta = state.x_adv.double() - problem.x.double() + per_example(size, direction) * direction
        scale = radius / measure(delta, "L2").clamp(min=1e-30)
        x_adv = problem.x.double() + per_example(scale, delta) * delta
        return DDNState(x_adv.clamp(0.0, 1.0).to(problem.x.dtype), radius)


def _somewhere(problem: Problem, direction: Tensor) -> Tensor:
    """The direction, (B, C, H, W), a random one where it is zero."""
    lost = (direction == 0).flatten(1).all(dim=1)
    if not direction.is_cuda and not lost.any():  # on a GPU the question would be waited for
        return direction
    noise = unit(problem.draws.normal(direction.shape[1:], "direction"))
    return torch.where(per_example(lost, direction), noise, direction)
