"""Zeroth-order optimisation: Carlini and Wagner's attack on scores, coordinate by coordinate."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Problem
from ...bench.api.errors import BadParameter
from ...bench.api.threat import Norm, per_example
from ..gradients.score_differences import PROBES_AT_ONCE, losses_at
from ..parts.losses import Margin
from ..parts.parameters import at_least, positive

_DECAY, _DECAY_SQUARES, _TINY = 0.9, 0.999, 1e-8  # Adam's
_GROWTH = 10.0  # of the weight, while no search has succeeded


@dataclass
class ZOOState:
    """Where the search for each example stands.

    x_adv: (B, C, H, W). mean, square: (B, D), Adam's moments; updates: (B, D), how often each
    coordinate was moved. weight, low, high: (B,) float64, the constant c and what it lies between.
    won: (B,) bool, whether this search has found an adversarial point.
    """

    x_adv: Tensor
    mean: Tensor
    square: Tensor
    updates: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    won: Tensor


@dataclass(frozen=True)
class ZOO:
    """Minimise |delta|^2 + c max(-margin, 0) by Adam on a few random coordinates a step.

    The slope of the second term is taken by central differences, two queries a coordinate and one
    for the iterate. The constant c is found by bisection. It looks for the nearest adversarial
    point. Source: Chen et al. 2017 (arXiv:1708.03999), algorithms 1 and 2 (ZOO-ADAM), with the
    constants of the authors' program for CIFAR-10: 257 queries a step, one value of c (the paper
    has up to nine, from 0.01 on). On the bounded image itself, as the program does for MNIST, where
    it takes the inverse hyperbolic tangent for other images. Without their early end, and without
    their reduced attack space, its hierarchy and importance sampling, which are for images of
    299x299: of images much larger than 32x32 the defaults move each pixel too seldom to get far.

    steps: over all searches. searches: values of c tried. coordinates: moved in each step.
    learning_rate: of Adam, in pixel values. spacing: of the differences. first_weight: c at first.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "zoo", "coordinates": 16, "steps": 200}
    >>> result = evaluate(model, images, labels, attack, norm="L2", epsilons=[0.1, 0.22])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "2"
    norms: ClassVar[tuple[Norm, ...]] = ("L2",)
    minimum_norm: ClassVar[bool] = True
    stays_in_ball: ClassVar[bool] = False

    steps: int = 1000
    searches: int = 1
    coordinates: int = 128
    learning_rate: float = 0.01
    spacing: float = 1e-4
    first_weight: float = 0.5

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, searches=self.searches, coordinates=self.coordinates)
        positive(learning_rate=self.learning_rate, spacing=self.spacing)
        positive(first_weight=self.first_weight)
        if self.searches > self.steps:
            raise BadParameter(f"{self.searches} searches need as many steps, not {self.steps}")

    @property
    def access(self) -> Access:
        """Score."""
        return "score"

    def start(self, problem: Problem) -> ZOOState:
        """Begin at the clean image."""
        zeros = torch.zeros_like(problem.x).flatten(1)
        none = torch.zeros_like(problem.epsilon)
        first = torch.full_like(none, self.first_weight)
        return ZOOState(problem.x, zeros, zeros, zeros, first, none, none + torch.inf, none.bool())

    def step(self, problem: Problem, state: ZOOState) -> ZOOState:
        """Move some coordinates; where a search ends, begin the next one."""
        again = (problem.step > 0) & (problem.step % (self.steps // self.searches) == 0)
        again = again & (problem.step < self.steps // self.searches * self.searches)
        state = self._next_search(problem, state, again)
        flat = state.x_adv.flatten(1)
        axes = problem.draws.permutation(flat.shape[1], "axes")[:, : self.coordinates]
        here, slope = self._slopes(problem, flat, axes)
        pulled = 2.0 * (flat - problem.x.flatten(1)).gather(1, axes)
        weighted = state.weight[:, None] * slope
        gradient = pulled - torch.where(here[:, None] < 0, weighted, 0.0).to(flat.dtype)
        moved = self._adam(state, flat, axes, gradient)
        return replace(moved, won=state.won | (here > 0))

    def _slopes(self, problem: Problem, flat: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) and (B, n): the margin at x (B, D), and its slopes along axes (B, n)."""
        loss = Margin()
        here = losses_at(problem, flat[:, None], loss)[:, 0]
        slopes = []
        for some in axes.split(max(1, PROBES_AT_ONCE // (2 * flat.numel())), dim=1):
            count = some.shape[1]
            centre = flat.gather(1, some)
            upper = (centre + self.spacing).clamp(max=1.0)
            lower = (centre - self.spacing).clamp(min=0.0)
            probes = flat[:, None, :].repeat(1, 2 * count, 1)
            moved = torch.cat([upper, lower], dim=1)[..., None]
            probes.scatter_(2, some.repeat(1, 2)[..., None], moved)
            up, down = losses_at(problem, probes, loss).split(count, dim=1)
            slopes.append((up - down) / (upper - lower))
        return here, torch.cat(slopes, dim=1)

    def _adam(self, state: ZOOState, flat: Tensor, axes: Tensor, gradient: Tensor) -> ZOOState:
        """Adam's step on some coordinates, each with a count and moments of its own."""
        updates = state.updates.gather(1, axes) + 1.0
        mean = _DECAY * state.mean.gather(1, axes) + (1.0 - _DECAY) * gradient
        square = state.square.gather(1, axes)
        square = _DECAY_SQUARES * square + (1.0 - _DECAY_SQUARES) * gradient.square()
        size = mean / (1.0 - _DECAY**updates)
        size = size / ((square / (1.0 - _DECAY_SQUARES**updates)).sqrt() + _TINY)
        moved = (flat.gather(1, axes) - self.learning_rate * size).clamp(0.0, 1.0)
        return replace(
            state,
            x_adv=flat.scatter(1, axes, moved).reshape(state.x_adv.shape),
            mean=state.mean.scatter(1, axes, mean),
            square=state.square.scatter(1, axes, square),
            updates=state.updates.scatter(1, axes, updates),
        )

    def _next_search(self, problem: Problem, state: ZOOState, again: Tensor) -> ZOOState:
        """Where `again`, (B,) bool: start over with the next constant."""
        high = torch.where(again & state.won, state.weight, state.high)
        low = torch.where(again & ~state.won, state.weight, state.low)
        middle = torch.where(high.isfinite(), 0.5 * (low + high), _GROWTH * state.weight)
        kept = ~again[:, None]
        return ZOOState(
            torch.where(per_example(again, problem.x), problem.x, state.x_adv),
            state.mean * kept,
            state.square * kept,
            state.updates * kept,
            torch.where(again, middle, state.weight),
            low,
            high,
            state.won & ~again,
        )
