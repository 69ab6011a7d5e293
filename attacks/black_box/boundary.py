"""The boundary attack."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Problem
from ...bench.api.errors import BadParameter
from ...bench.api.threat import Norm, measure, per_example
from ..parts.boundary_search import StartingPoints, among, bisect, blend
from ..parts.parameters import at_least

_TINY = 1e-12
_WINDOW = 30  # steps between two looks at how often they succeed
_LOOKS = 10  # a share of the steps, one in so many, tells how often the sideways part succeeds
_FACTOR = 1.5


@dataclass
class BoundaryState:
    """Where the walk of each example stands.

    x_adv: (B, C, H, W), the nearest adversarial point. found: (B,) bool, whether there is one.
    sideways, forwards: (B,) float64, step sizes as parts of the distance. side_tries, side_wins,
    attempts, wins: (B,) since the sizes were looked at last.
    """

    x_adv: Tensor
    found: Tensor
    sideways: Tensor
    forwards: Tensor
    side_attempts: Tensor
    side_wins: Tensor
    attempts: Tensor
    wins: Tensor


@dataclass(frozen=True)
class Boundary:
    """A random walk along the boundary, ever nearer to the image; it sees labels only.

    Each step moves sideways, on the sphere around the image, and then a little towards it, and
    stays where that is adversarial. Every tenth step also asks about its sideways part alone. Step
    sizes follow how often these succeed: sideways steps are to succeed half the time, whole ones a
    quarter. It looks for the nearest adversarial point.

    Source: Brendel et al. 2018 (arXiv:1712.04248), section 2; every step asks about its sideways
    part there.
    Checked against Foolbox.

    steps: of the walk. sideways, forwards: first step sizes, as parts of the distance.
    starting_points: where adversarial points to begin with come from.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "boundary", "steps": 300}
    >>> result = evaluate(model, images, labels, attack, norm="L2", epsilons=[0.1, 0.22, 1.0])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5, 0.0]
    """

    version: ClassVar[str] = "1"
    norms: ClassVar[tuple[Norm, ...]] = ("L2",)
    minimum_norm: ClassVar[bool] = True
    stays_in_ball: ClassVar[bool] = False
    asks_iterates: ClassVar[bool] = True

    steps: int = 5000
    sideways: float = 0.1
    forwards: float = 0.1
    starting_points: StartingPoints = StartingPoints()

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        for name in ("sideways", "forwards"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise BadParameter(f"{name} must lie between 0 and 1, not {getattr(self, name)}")

    @property
    def access(self) -> Access:
        """Decision."""
        return "decision"

    def start(self, problem: Problem) -> BoundaryState:
        """Find an adversarial point, and the boundary between it and the image."""
        far, found = self.starting_points.find(problem)
        none = torch.zeros_like(problem.epsilon)
        share = bisect(
            problem, lambda at: blend(problem.x, far, at), none, none + 1.0, none + 1e-3, found
        )
        return BoundaryState(
            blend(problem.x, far, share),
            found,
            none + self.sideways,
            none + self.forwards,
            *(torch.zeros_like(problem.step) for _ in range(4)),
        )

    def step(self, problem: Problem, state: BoundaryState) -> BoundaryState:
        """One step of the walk."""
        looking = state.found & (problem.step % _LOOKS == 0)
        beside, candidate = self._proposal(problem, state)
        side_hit, _ = among(problem, beside, looking)
        hit, _ = among(problem, candidate, state.found)
        nearer = hit & (self._distance(problem, candidate) < self._distance(problem, state.x_adv))
        walked = BoundaryState(
            torch.where(per_example(nearer, candidate), candidate, state.x_adv),
            state.found,
            state.sideways,
            state.forwards,
            state.side_attempts + looking,
            state.side_wins + side_hit,
            state.attempts + 1,
            state.wins + hit,
        )
        return self._adapted(walked)

    def _proposal(self, problem: Problem, state: BoundaryState) -> tuple[Tensor, Tensor]:
        """Two points (B, C, H, W): sideways on the sphere, and from there towards the image."""
        x = problem.x.double()
        outwards = state.x_adv.double() - x
        distance = measure(outwards, "L2").clamp(min=_TINY)
        unit = outwards / per_example(distance, x)
        noise = problem.draws.normal(x.shape[1:], "sideways").double()
        along = (noise * unit).flatten(1).sum(dim=1)
        noise = noise - per_example(along, x) * unit
        noise = noise / per_example(measure(noise, "L2").clamp(min=_TINY), x)
        turned = unit + per_example(state.sideways, x) * noise
        turned = turned / per_example((1.0 + state.sideways.square()).sqrt(), x)
        beside = (x + per_example(distance, x) * turned).clamp(0.0, 1.0)
        off = measure(beside - x, "L2").clamp(min=_TINY)
        share = ((1.0 - state.forwards) * distance / off).clamp(max=1.0)
        candidate = x + per_example(share, x) * (beside - x)
        return beside.to(problem.x.dtype), candidate.to(problem.x.dtype).clamp(0.0, 1.0)

    def _distance(self, problem: Problem, points: Tensor) -> Tensor:
        return measure(points.double() - problem.x.double(), "L2")

    def _adapted(self, state: BoundaryState) -> BoundaryState:
        """Longer steps where they succeed often, shorter ones where they seldom do."""
        full = state.side_attempts >= _WINDOW // 3
        share = state.side_wins / state.side_attempts.clamp(min=1)
        factor = _factor(full, share, 0.2, 0.5)
        whole = state.attempts >= _WINDOW
        success = state.wins / state.attempts.clamp(min=1)
        return BoundaryState(
            state.x_adv,
            state.found,
            (state.sideways * factor).clamp(max=0.9),
            (state.forwards * factor * _factor(whole, success, 0.1, 0.25)).clamp(max=0.9),
            state.side_attempts * ~full,
            state.side_wins * ~full,
            state.attempts * ~whole,
            state.wins * ~whole,
        )


def _factor(due: Tensor, share: Tensor, low: float, high: float) -> Tensor:
    """(B,) float64: what to multiply a step size by, given the share of steps that succeeded."""
    longer = torch.where(due & (share > high), _FACTOR, 1.0)
    return torch.where(due & (share < low), 1.0 / _FACTOR, longer).double()
