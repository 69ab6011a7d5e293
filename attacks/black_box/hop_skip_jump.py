"""HopSkipJump."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Problem
from ...bench.api.threat import Norm, measure, per_example
from ..parts.boundary_search import StartingPoints, adversarial, among, bisect, blend
from ..parts.parameters import at_least, positive

_PROBES_AT_ONCE = 1 << 22  # numbers held in one batch of probes
_DRAWN_AT_ONCE = 1 << 15  # numbers of one draw for each example; part of what names a number
_FIRST_REACH = 0.1  # of the probes at the first step
_HALVINGS = 30


@dataclass
class HopSkipJumpState:
    """x_adv: (B, C, H, W), beside the boundary. found: (B,) bool, whether there is such a point."""

    x_adv: Tensor
    found: Tensor


@dataclass
class _Votes:
    """What the probes around each point said: 1 for adversarial, -1 for not.

    sum, answers: (B,). weighted, moved: (B, D), the sums of their directions with these weights,
    and without.
    """

    sum: Tensor
    answers: Tensor
    weighted: Tensor
    moved: Tensor


@dataclass(frozen=True)
class HopSkipJump:
    """Estimate the boundary's normal from labels, step along it, go back to the boundary.

    It looks for the nearest adversarial point. Source: Chen et al. 2020 (arXiv:1904.02144),
    algorithm 2, with its constants: at step t, first_samples times the square root of t probes,
    and steps of the distance over the square root of t, halved until they succeed. In Linf too the
    first way to the boundary is straight.
    Checked against Foolbox and the Adversarial Robustness Toolbox.

    steps: iterations. first_samples, most_samples: probes at the first step, and the most at any.
    precision: gamma, how close to the boundary to go: bisection ends at gamma over D^(3/2) of the
        way in L2, at gamma over D^2 in Linf, in D coordinates.
    starting_points: where adversarial points to begin with come from.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "hop-skip-jump", "steps": 5}
    >>> result = evaluate(model, images, labels, attack, norm="L2", epsilons=[0.1, 0.22])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "1"
    norms: ClassVar[tuple[Norm, ...]] = ("L2", "Linf")
    minimum_norm: ClassVar[bool] = True
    stays_in_ball: ClassVar[bool] = False
    asks_iterates: ClassVar[bool] = True

    steps: int = 40
    first_samples: int = 100
    most_samples: int = 10_000
    precision: float = 1.0
    starting_points: StartingPoints = StartingPoints()

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        at_least(1, first_samples=self.first_samples, most_samples=self.most_samples)
        positive(precision=self.precision)

    @property
    def access(self) -> Access:
        """Decision."""
        return "decision"

    def start(self, problem: Problem) -> HopSkipJumpState:
        """Find an adversarial point, and the boundary between it and the image."""
        far, found = self.starting_points.find(problem)
        if problem.ball.norm == "Linf":
            none = torch.zeros_like(problem.epsilon)
            share = bisect(
                problem, lambda at: blend(problem.x, far, at), none, none + 1.0, none + 1e-3, found
            )
            far = blend(problem.x, far, share)
        return HopSkipJumpState(self._to_boundary(problem, far, found), found)

    def step(self, problem: Problem, state: HopSkipJumpState) -> HopSkipJumpState:
        """Estimate the normal, step along it as far as it goes, go back to the boundary."""
        x, norm, found = problem.x, problem.ball.norm, state.found
        distance = measure(state.x_adv.double() - x.double(), norm)
        total = x[0].numel()
        reach = distance * self._tolerance(total, norm) * (total if norm == "Linf" else total**0.5)
        reach = torch.where(problem.step == 0, _FIRST_REACH, reach)
        direction = self._normal(problem, state, reach)
        length = distance / (problem.step + 1.0).sqrt()
        seeking = found
        x_adv = state.x_adv
        for _ in range(_HALVINGS):
            move = per_example(length, x).to(x.dtype) * direction
            candidate = (state.x_adv + move).clamp(0.0, 1.0)
            hit, answered = among(problem, candidate, seeking)
            x_adv = torch.where(per_example(hit, x), candidate, x_adv)
            seeking = seeking & answered & ~hit
            if not seeking.any():
                break
            length = torch.where(hit, length, 0.5 * length)
        return HopSkipJumpState(self._to_boundary(problem, x_adv, found), found)

    def _tolerance(self, total: int, norm: Norm) -> float:
        return self.precision / (total**2 if norm == "Linf" else total**1.5)

    def _to_boundary(self, problem: Problem, far: Tensor, found: Tensor) -> Tensor:
        """(B, C, H, W): the last adversarial points on the way from `far` to the images.

        In L2 the way is straight; in Linf it goes along the shrinking ball.
        """
        x, norm = problem.x, problem.ball.norm
        tolerance = torch.full_like(problem.epsilon, self._tolerance(x[0].numel(), norm))
        none = torch.zeros_like(problem.epsilon)
        if norm == "L2":
            share = bisect(
                problem, lambda at: blend(x, far, at), none, none + 1.0, tolerance, found
            )
            return blend(x, far, share)
        distance = measure(far.double() - x.double(), norm)

        def within(radius: Tensor) -> Tensor:
            width = per_example(radius, x).to(x.dtype)
            cut = torch.minimum(torch.maximum(far, x - width), x + width)
            return torch.where(per_example(radius >= distance, x), far, cut)

        tolerance = tolerance * distance.clamp(max=1.0)
        return within(bisect(problem, within, none, distance, tolerance, found))

    def _normal(self, problem: Problem, state: HopSkipJumpState, reach: Tensor) -> Tensor:
        """(B, C, H, W): the estimate of the boundary's normal, into the adversarial side.

        Of length 1 in L2, of signs in Linf. reach: (B,), how far away the probes are.
        """
        counts = self.first_samples * (problem.step + 1.0).double().sqrt()
        counts = counts.long().clamp(max=self.most_samples) * state.found
        votes = self._votes(problem, state.x_adv.flatten(1), reach, counts)
        mean = votes.sum / votes.answers.clamp(min=1.0)
        baseline = torch.where(mean.abs() == 1.0, 0.0, mean)[:, None].to(votes.moved.dtype)
        estimate = (votes.weighted - baseline * votes.moved).reshape(state.x_adv.shape)
        if problem.ball.norm == "Linf":
            return estimate.sign()
        size = measure(estimate, "L2").clamp(min=1e-30)
        return (estimate / per_example(size, estimate)).to(votes.moved.dtype)

    def _votes(self, problem: Problem, flat: Tensor, reach: Tensor, counts: Tensor) -> "_Votes":
        """Ask about `counts` (B,) points at a distance `reach` (B,) of each point (B, D)."""
        votes = _Votes(*(torch.zeros_like(one) for one in (reach, reach, flat, flat)))
        drawn = max(1, _DRAWN_AT_ONCE // flat.shape[1])
        together = max(1, _PROBES_AT_ONCE // (flat.numel() * drawn)) * drawn
        most = -(-int(counts.max()) // drawn) * drawn
        for begin in range(0, most, together):
            end = min(begin + together, most)
            directions = self._directions(problem, range(begin, end, drawn), drawn)
            length = per_example(reach, directions).to(flat.dtype)
            probes = (flat[:, None] + length * directions).clamp_(0.0, 1.0)
            moved = (probes - flat[:, None]) / length
            asked = torch.arange(begin, end, device=flat.device) < counts[:, None]
            rows, numbers = torch.nonzero(asked, as_tuple=True)
            images = probes[rows, numbers].reshape(-1, *problem.x.shape[1:])
            hit, answered = adversarial(problem, images, rows)
            vote = torch.where(hit, 1.0, -1.0) * answered
            signs = flat.new_zeros(asked.shape).index_put((rows, numbers), vote)
            given = flat.new_zeros(asked.shape).index_put((rows, numbers), answered.float())
            votes.sum += signs.sum(dim=1)
            votes.answers += given.sum(dim=1)
            for one in range(end - begin):  # in this order, however many are asked together
                votes.weighted += signs[:, one, None] * moved[:, one]
                votes.moved += given[:, one, None] * moved[:, one]
        return votes

    def _directions(self, problem: Problem, draws: range, drawn: int) -> Tensor:
        """(B, n, D): random unit vectors, `drawn` for each draw."""
        shape = (drawn, problem.x[0].numel())
        parts = []
        for first in draws:
            stream = f"directions from {first}"
            if problem.ball.norm == "L2":
                parts.append(problem.draws.normal(shape, stream))
            else:
                parts.append(2.0 * problem.draws.uniform(shape, stream) - 1.0)
        directions = torch.cat(parts, dim=1)
        lengths: Tensor = directions.norm(dim=2, keepdim=True).clamp(min=1e-30)
        return directions / lengths
