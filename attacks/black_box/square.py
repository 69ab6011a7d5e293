"""The Square attack."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Loss, Problem
from ...bench.api.threat import Norm, per_example
from ..parts.losses import CrossEntropy, Margin
from ..parts.parameters import at_least, positive_up_to
from ..parts.square_patches import place, place_windows, tiled_start, within

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 candidates
_SMALLEST: dict[Norm, int] = {"Linf": 1, "L2": 3, "L1": 3}  # side of a square or window


@dataclass
class SquareState:
    """x_adv: (B, C, H, W), the best point. value: (B,), its loss, -inf before it is known."""

    x_adv: Tensor
    value: Tensor


@dataclass(frozen=True)
class Square:
    """Random search: squares of pixels moved to the edge of the ball, kept when the loss grows.

    Source: Andriushchenko et al. 2020 (arXiv:1912.00049), algorithms 1 to 3; in L1 as in
    AutoAttack (Croce & Hein 2020, arXiv:2003.01690). One query a step, the first for the start.
    Every example draws squares of its own, where the authors' programs draw one for the batch.
    Unlike there, unless `published`: in Linf a square that would change nothing is turned to the
    other sign, and a square may reach the last row and column.
    Checked against pyautoattack, torchattacks and the Adversarial Robustness Toolbox.

    steps: queries.
    first_share: of the pixels in the first square (the paper's p).
    loss: what grows; None: the margin, and cross-entropy towards a target class.
    scheduled_over: how many candidates the sizes of the squares are scheduled over; None: as many
        as there are. The paper's schedule is made for 10,000.
    published: place and keep squares as the authors' programs do.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(
    ...     model, images, labels, "square", epsilons=[0.025, 0.055], query_budget=300
    ... )
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    >>> int(result.records["backward"].max()), int(result.records["queries"].max())
    (0, 300)
    """

    version: ClassVar[str] = "2"
    boundary_search: ClassVar[bool] = False
    asks_iterates: ClassVar[bool] = True

    steps: int = 5000
    first_share: float = 0.8
    loss: Loss | None = None
    scheduled_over: int | None = None
    published: bool = False

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        positive_up_to(1.0, first_share=self.first_share)
        at_least(1, scheduled_over=self.scheduled_over)

    @property
    def access(self) -> Access:
        """Score."""
        return "score"

    def start(self, problem: Problem) -> SquareState:
        """Begin with vertical stripes in Linf, with tiles of windows in L2 and L1."""
        if problem.ball.norm == "Linf":
            channels, _, width = problem.x.shape[1:]
            stripes = problem.draws.signs((channels, 1, width), "stripes")
            cold = problem.ball.project(problem.x + problem.ball.radius * stripes)
        else:
            cold = tiled_start(problem)
        begin = torch.where(per_example(problem.warm, cold), problem.start_points, cold)
        value = torch.full_like(problem.epsilon, -torch.inf, dtype=torch.float32)
        return SquareState(begin, value)

    def step(self, problem: Problem, state: SquareState) -> SquareState:
        """Ask about one more square; the first step asks about the start."""
        norm = problem.ball.norm
        move = self._square if norm == "Linf" else self._windows
        first = per_example(problem.step == 0, problem.x)
        candidate = torch.where(first, state.x_adv, move(problem, state.x_adv))
        loss = self.loss or (CrossEntropy() if problem.targeted else Margin())
        logits = problem.victim.scores(candidate)
        value = loss(logits, problem.y, targeted=problem.targeted).float()
        better = value > state.value  # not so for NaN
        return SquareState(
            torch.where(per_example(better, candidate), candidate, state.x_adv),
            torch.where(better, value, state.value),
        )

    def _side(self, problem: Problem, norm: Norm) -> Tensor:
        """(B,) int64: side of each example's square at its step."""
        height, width = problem.x.shape[2:]
        bounds = torch.tensor(_HALVINGS, device=problem.x.device)
        before = (problem.step - 1).clamp(min=0)  # candidates; the first query is the start's
        over = self.scheduled_over or max(1, self.steps - 1)
        halvings = torch.bucketize(before * 10_000 // over, bounds)
        share = self.first_share * torch.exp2(-halvings.double())
        side = (share * height * width).sqrt().round().long().clamp(min=_SMALLEST[norm])
        if norm != "Linf":
            side = side + 1 - side % 2  # a window has a middle
        return side.clamp(max=min(height, width))

    def _square(self, problem: Problem, x_adv: Tensor) -> Tensor:
        """(B, C, H, W): x_adv with one square at the edge of the ball, a sign for each channel."""
        batch, channels, height, width = x_adv.shape
        side = self._side(problem, "Linf")
        drawn = problem.draws.uniform((2 + channels,), "square")
        top, left = (
            place(drawn[:, axis], length - side, last=not self.published)
            for axis, length in enumerate((height, width))
        )
        square = within(top, left, side, height, width)[:, None]
        sign = torch.where(drawn[:, 2:] < 0.5, -1.0, 1.0).reshape(batch, channels, 1, 1)
        reach = problem.ball.radius * sign
        candidate = torch.where(square, problem.ball.project(problem.x + reach), x_adv)
        if self.published:
            return candidate
        other = torch.where(square, problem.ball.project(problem.x - reach), x_adv)
        idle = (candidate == x_adv).flatten(1).all(dim=1)
        return torch.where(per_example(idle, x_adv), other, candidate)

    def _windows(self, problem: Problem, x_adv: Tensor) -> Tensor:
        """(B, C, H, W): x_adv with the norm of two windows gathered in one."""
        side = self._side(problem, problem.ball.norm)
        return place_windows(problem, x_adv, side, last=not self.published)
