"""The simple black-box attack."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Basis, Loss, Problem
from ...bench.api.threat import Norm, per_example
from ..gradients.bases import Pixels
from ..parts.losses import CrossEntropy
from ..parts.parameters import at_least, positive

_STEP_SIZE: dict[Norm, float] = {"Linf": 1.0, "L2": 0.2}


@dataclass
class SimBAState:
    """x_adv: (B, C, H, W). value: (B,), its loss. order: (B, n), the directions' order."""

    x_adv: Tensor
    value: Tensor
    order: Tensor


@dataclass(frozen=True)
class SimBA:
    """Try one direction of a basis after the other, forwards, else backwards; keep what helps.

    Source: Guo et al. 2019 (arXiv:1905.07121), algorithm 1: directions in random order without
    replacement, at most two queries each. Unlike there, the iterate stays in the ball; the steps
    are a fraction of its radius; when all directions have been tried they are tried again.

    steps: directions tried.
    step_size: length of a step, as a fraction of epsilon: the largest change of a pixel in Linf,
        by default 1; the L2 norm in L2, by default 0.2.
    basis: `pixels`, or `cosines` for SimBA-DCT.
    loss: what has to grow; the same order as the label's probability, as there.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(
    ...     model, images, labels, "simba", epsilons=[0.025, 0.055], query_budget=200
    ... )
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "1"
    norms: ClassVar[tuple[Norm, ...]] = ("L2", "Linf")
    boundary_search: ClassVar[bool] = False
    asks_iterates: ClassVar[bool] = True

    steps: int = 1000
    step_size: float | None = None
    basis: Basis = Pixels()
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        positive(step_size=self.step_size)

    @property
    def access(self) -> Access:
        """Score."""
        return "score"

    def start(self, problem: Problem) -> SimBAState:
        """Begin at the clean image, or where an earlier attempt ended; ask for its loss."""
        x_adv = problem.initial(random_start=False)
        order = problem.draws.permutation(self.basis.count(problem), "order")
        return SimBAState(x_adv, self._value(problem, x_adv, None), order)

    def step(self, problem: Problem, state: SimBAState) -> SimBAState:
        """Ask about the next direction, and about its opposite where that did not help."""
        turn = (problem.step % state.order.shape[1])[:, None]
        vector = self.basis.vectors(problem, state.order.gather(1, turn)).reshape(problem.x.shape)
        size = self.step_size or _STEP_SIZE[problem.ball.norm]
        if problem.ball.norm == "Linf":
            largest = vector.abs().flatten(1).amax(dim=1)
            vector = vector / per_example(largest, vector)
        move = size * problem.ball.radius * vector
        after = self._tried(problem, state, problem.ball.project(state.x_adv + move), None)
        undecided = torch.nonzero(after.value <= state.value).flatten()
        back = problem.ball.project(state.x_adv - move)
        return self._tried(problem, after, back, undecided)

    def _tried(
        self, problem: Problem, state: SimBAState, candidate: Tensor, rows: Tensor | None
    ) -> SimBAState:
        """The state after asking about candidates (B, C, H, W), in some rows only."""
        value = self._value(problem, candidate, rows)
        better = value > state.value  # not so for NaN
        return SimBAState(
            torch.where(per_example(better, candidate), candidate, state.x_adv),
            torch.where(better, value, state.value),
            state.order,
        )

    def _value(self, problem: Problem, points: Tensor, rows: Tensor | None) -> Tensor:
        """(B,): the loss at the points, NaN where it is not asked for or not answered."""
        every = torch.arange(len(points), device=points.device) if rows is None else rows
        nothing = torch.full((len(points),), torch.nan, device=points.device)
        if not len(every):
            return nothing
        scores = problem.victim.scores(points[every], every)
        values = self.loss(scores, problem.y[every], targeted=problem.targeted).float()
        return nothing.index_copy(0, every, values)
