"""Bandits with time and data priors."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...bench.api.attack import Access, Loss, Problem
from ...bench.api.threat import Norm, measure, per_example
from ..parts.losses import CrossEntropy
from ..parts.parameters import at_least, positive

_TINY = 1e-12
_TILES = 50  # along a side, at most
_STEP_SIZE: dict[Norm, float] = {"Linf": 0.2, "L2": 0.1}
_ONLINE: dict[Norm, float] = {"Linf": 100.0, "L2": 0.1}
_EXPLORATION: dict[Norm, float] = {"Linf": 1.0, "L2": 0.01}
_REACH: dict[Norm, float] = {"Linf": 0.1, "L2": 0.01}


@dataclass
class BanditsState:
    """x_adv: (B, C, H, W). prior: (B, C, h, w), what is believed of the gradient, on tiles."""

    x_adv: Tensor
    prior: Tensor


@dataclass(frozen=True)
class Bandits:
    """Gradient steps along a prior that is learnt on the way: three queries a step.

    The prior lives on tiles of pixels (the data prior) and is carried from step to step (the time
    prior). Each step asks about two points to either side of it, takes a step of online learning
    from the difference, moves x along the prior, and asks about the new iterate.

    Source: Ilyas et al. 2019 (arXiv:1807.07978), algorithms 1 to 3, with the exponentiated
    gradient update in Linf and plain gradient ascent in L2; their ImageNet hyper-parameters but for
    the step size, which is a fraction of epsilon here, and the tiles. The iterate's own query,
    which they do not count, is counted; probes stop at the border of [0, 1].

    steps: one each of the prior and of the image.
    step_size: length of the image's step as a fraction of epsilon; by default 0.2 in Linf (0.01 at
        their epsilon of 0.05) and 0.1 in L2 (0.5 at their 5).
    tile: side of a tile in pixels; by default as small as leaves at most 50 tiles a side.
    online_rate, exploration, reach: the prior's learning rate, how far to either side of it to
        look, and the L2 norm of the probes; by default 100, 1 and 0.1 in Linf, 0.1, 0.01 and 0.01
        in L2.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(
    ...     model, images, labels, "bandits", epsilons=[0.025, 0.055], query_budget=500
    ... )
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.6]
    """

    version: ClassVar[str] = "2"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    monotone: ClassVar[bool] = False
    asks_iterates: ClassVar[bool] = True
    boundary_search: ClassVar[bool] = False

    steps: int = 1000
    step_size: float | None = None
    tile: int | None = None
    online_rate: float | None = None
    exploration: float | None = None
    reach: float | None = None
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, tile=self.tile)
        positive(step_size=self.step_size, online_rate=self.online_rate)
        positive(exploration=self.exploration, reach=self.reach)

    @property
    def access(self) -> Access:
        """Score."""
        return "score"

    def start(self, problem: Problem) -> BanditsState:
        """Begin at the clean image, with nothing known of the gradient."""
        height, width = problem.x.shape[2:]
        tile = self.tile or math.ceil(min(height, width) / _TILES)
        size = (math.ceil(height / tile), math.ceil(width / tile))
        prior = problem.x.new_zeros(*problem.x.shape[:2], *size)
        return BanditsState(problem.initial(random_start=False), prior)

    def step(self, problem: Problem, state: BanditsState) -> BanditsState:
        """Learn from two probes, move along the prior, ask about the new iterate."""
        norm = problem.ball.norm
        prior = self._learnt(problem, state)
        direction = problem.ball.steepest(self._spread(problem, prior), state.x_adv)
        size = self.step_size or _STEP_SIZE[norm]
        x_adv = problem.ball.project(state.x_adv + size * problem.ball.radius * direction)
        problem.victim.labels(x_adv)
        return BanditsState(x_adv, prior)

    def _learnt(self, problem: Problem, state: BanditsState) -> Tensor:
        """The prior after a step of online learning."""
        norm, prior = problem.ball.norm, state.prior
        exploration = self.exploration or _EXPLORATION[norm]
        reach, rate = self.reach or _REACH[norm], self.online_rate or _ONLINE[norm]
        noise = problem.draws.normal(prior.shape[1:], "exploration") / math.sqrt(prior[0].numel())
        probes = torch.stack(
            [self._probe(problem, state.x_adv, prior + sign * exploration * noise, reach)
             for sign in (1.0, -1.0)], dim=1,
        )  # fmt: skip
        rows = torch.arange(len(prior), device=prior.device).repeat_interleave(2)
        scores = problem.victim.scores(probes.flatten(0, 1), rows)
        values = self.loss(scores, problem.y[rows], targeted=problem.targeted).double()
        gap = (values[0::2] - values[1::2]) / (reach * exploration)
        move = rate * per_example(gap, noise) * exploration * noise.double()
        if norm == "L2":
            return (prior + move).to(prior.dtype)
        # (1 + p) e^m and (1 - p) e^-m, over their sum, back on [-1, 1]: tanh adds what m adds
        inside = prior.double().clamp(-1.0 + 1e-9, 1.0 - 1e-9)
        return (inside.atanh() + move).tanh().to(prior.dtype)

    def _probe(self, problem: Problem, x: Tensor, prior: Tensor, reach: float) -> Tensor:
        spread = self._spread(problem, prior)
        length = measure(spread, "L2", spread.dtype).clamp(min=_TINY)
        return (x + reach * spread / per_example(length, spread)).clamp(0.0, 1.0)

    def _spread(self, problem: Problem, prior: Tensor) -> Tensor:
        """The prior on pixels: (B, C, h, w) -> (B, C, H, W), each tile of one value."""
        return interpolate(prior, size=problem.x.shape[2:], mode="nearest")
