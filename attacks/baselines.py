"""Baselines that need to know nothing: random noise, salt and pepper, the way to grey."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..bench.api.attack import Access, Problem
from ..bench.api.threat import Norm, per_example
from .parts.parameters import at_least


@dataclass
class PointState:
    """x_adv: (B, C, H, W), the point last shown."""

    x_adv: Tensor


@dataclass(frozen=True)
class _Shown:
    """An attack that shows the model a point a step."""

    baseline: ClassVar[bool] = True
    monotone: ClassVar[bool] = False
    asks_iterates: ClassVar[bool] = True

    @property
    def access(self) -> Access:
        """Decision."""
        return "decision"

    def start(self, problem: Problem) -> PointState:
        """Begin at the clean image."""
        return PointState(problem.x)

    def step(self, problem: Problem, state: PointState) -> PointState:
        """Show the next point."""
        x_adv = self.point(problem)
        problem.victim.labels(x_adv)
        return PointState(x_adv)

    def point(self, problem: Problem) -> Tensor:
        """(B, C, H, W)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Noise(_Shown):
    """Random points on the edge of the ball, one a step: what an attack must beat.

    In Linf every coordinate moves by plus or minus epsilon, in L2 along a normal direction, in L1
    by exponential amounts. A model that falls to it as to gradients hides its gradients (Carlini et
    al. 2019, arXiv:1902.06705, section 5).

    steps: points.

    It finds fewer adversarial examples than gradients do:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> for attack in ("noise", "pgd"):
    ...     result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.105])
    ...     attack, result.curve["robust_accuracy"].tolist()
    ('noise', [0.8, 0.4])
    ('pgd', [0.8, 0.0])
    """

    steps: int = 100

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)

    def point(self, problem: Problem) -> Tensor:
        """(B, C, H, W): a random point of the ball, moved out to its edge."""
        delta = problem.ball.random(problem.draws) - problem.x
        if problem.ball.norm == "Linf":
            return problem.ball.project(problem.x + problem.ball.radius * delta.sign())
        return problem.ball.project(problem.x + _FAR * delta)


_FAR = 1e3  # times a random perturbation lies outside of the ball, wherever the box lets it


@dataclass(frozen=True)
class SaltAndPepper(_Shown):
    """More and more pixels turned black or white, in all channels, until the class changes.

    Pixels turn in a random order for each restart, half of them black. The nearest point is kept,
    whatever the epsilon.

    steps: amounts of noise, in equal parts up to all pixels.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(model, images, labels, "salt-and-pepper", norm="L1", epsilons=[1.0, 8.0])
    >>> result.curve["robust_accuracy"].tolist()
    [0.7, 0.1]
    """

    minimum_norm: ClassVar[bool] = True
    stays_in_ball: ClassVar[bool] = False
    norms: ClassVar[tuple[Norm, ...]] = ("L2", "L1")

    steps: int = 100

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)

    def point(self, problem: Problem) -> Tensor:
        """(B, C, H, W): the image with this step's amount of noise."""
        height, width = problem.x.shape[-2:]
        fixed = problem.draws.at_step(0)
        order = fixed.permutation(height * width, "order").reshape(-1, 1, height, width)
        white = fixed.signs((1, height, width), "white") > 0
        amount = (problem.step + 1) * (height * width) / self.steps
        return torch.where(order < per_example(amount, order), white.to(problem.x.dtype), problem.x)


@dataclass(frozen=True)
class Grey(_Shown):
    """The straight way to a grey image: the nearest point on it that changes the class.

    The way ends where no image is left. Whoever is still right there answers without looking, and
    an accuracy far above chance there is a fault of the measurement.

    steps: points on the way, at equal distances.

    On grey the two logits are equal, which counts as class 0: so the images of class 1 fall.
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(model, images, labels, "grey", epsilons=[0.055, 0.105, 0.5])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5, 0.5]
    """

    minimum_norm: ClassVar[bool] = True
    stays_in_ball: ClassVar[bool] = False

    steps: int = 100

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)

    def point(self, problem: Problem) -> Tensor:
        """(B, C, H, W): a step further towards grey."""
        share = per_example((problem.step + 1) / self.steps, problem.x).to(problem.x.dtype)
        return problem.x + share * (0.5 - problem.x)
