"""Adam on the perturbation, projected."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, GradientSource, Loss, Problem
from ...bench.api.threat import Norm, per_example
from ..gradients.autograd import Autograd
from ..parts.losses import SummedHinge
from ..parts.parameters import at_least, positive

_FIRST, _SECOND = 0.9, 0.999  # decay of the moments
_TINY = 1e-12


@dataclass
class AdamState:
    """x_adv: (B, C, H, W). mean, square: (B, C, H, W), the gradient's moments."""

    x_adv: Tensor
    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class Adam:
    """Projected Adam: each coordinate moves by its own gradient's mean over its spread.

    Unlike sign steps it slows down where the gradient changes its mind, and unlike steepest steps
    it does not give way to the few largest coordinates. Source: Kingma & Ba 2015 (arXiv:1412.6980),
    algorithm 1, ascending, projected after each step as in Uesato et al. 2018 (arXiv:1802.05666).
    Unlike there, each gradient is first divided by its largest coordinate: a loss that is thousands
    of times steeper at one step than at the next would else be all that the moments remember.

    steps: gradients. step_size: of a coordinate, as a fraction of epsilon in Linf, falling linearly
        to zero; in L2 a step is that fraction of epsilon long.
    random_start: begin at a random point of the ball. loss: what grows. gradient: its source.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "adam", "steps": 30, "step_size": 0.2}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "1"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")

    steps: int = 100
    step_size: float = 0.2
    random_start: bool = True
    loss: Loss = SummedHinge()
    gradient: GradientSource = Autograd()

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        positive(step_size=self.step_size)

    @property
    def access(self) -> Access:
        """What its gradient source needs."""
        return self.gradient.access

    @property
    def monotone(self) -> bool:
        """Whether a failure tells of smaller epsilons: not one long step, nor guesswork."""
        return self.steps > 1 and getattr(self.gradient, "monotone", True)

    @property
    def step_multiplier(self) -> float:
        """A long step crosses most of the ball."""
        return 0.6 / self.step_size

    def start(self, problem: Problem) -> AdamState:
        """Begin at a random point, or at the clean image."""
        x_adv = problem.initial(random_start=self.random_start)
        return AdamState(x_adv, torch.zeros_like(x_adv), torch.zeros_like(x_adv))

    def step(self, problem: Problem, state: AdamState) -> AdamState:
        """Update the moments, move, and project."""
        gradient = self.gradient(problem, state.x_adv, self.loss)
        largest = gradient.abs().flatten(1).amax(dim=1).clamp(min=1e-30)
        gradient = gradient / per_example(largest, gradient)  # the squares of 1e-30 would vanish
        mean = _FIRST * state.mean + (1.0 - _FIRST) * gradient
        square = _SECOND * state.square + (1.0 - _SECOND) * gradient.square()
        done = problem.step + 1
        spread = (square / per_example(1.0 - _SECOND**done, square)).sqrt()
        move = mean / per_example(1.0 - _FIRST**done, mean) / (spread + _TINY)
        if problem.ball.norm != "Linf":
            move = problem.ball.steepest(move, state.x_adv)
        left = 1.0 - problem.step / self.steps
        size = per_example(self.step_size * left, move).to(move.dtype) * problem.ball.radius
        return AdamState(problem.ball.project(state.x_adv + size * move), mean, square)
