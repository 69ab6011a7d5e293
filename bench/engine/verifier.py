"""Verify what attacks found, and record what holds.

A point is judged again by the float32 model in another batch, without autograd, the ball in float64
with zero tolerance.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..api.epsilon import Norm
from ..api.threat import measure
from ..victim.decision import decision_of
from ..victim.model import Network
from ..victim.voting import SECOND, Votes, prediction
from .outcomes import Outcomes

Keep = Callable[[int, int, Tensor, float], None]


@dataclass(frozen=True)
class Candidate:
    """An adversarial example of one owner at one point of the grid. clean, x_adv: (C, H, W).

    found: False for where an attempt ended that found none, to be weighed but not recorded as
    broken.
    """

    owner: int
    point: int
    clean: Tensor
    x_adv: Tensor
    found: bool = True


@dataclass
class Verifier:
    """Verifies candidates, a batch at a time, and records those that hold.

    goals, examples: (N,) int64, by owner, as in Field. radii: of the grid. covers: whether what
    breaks one point breaks all above it. stage: the attack's place in the cascade. keep: gets
    (owner, point, x_adv on the CPU, its norm) of each candidate that is verified. not_reproduced:
    the owners of the others. detector_unaware: whether the attack saw the classifier alone, in a
    network with a reject option: what is rejected is then no success, and no failure either.
    """

    network: Network
    outcomes: Outcomes
    goals: Tensor
    examples: Tensor
    radii: tuple[float, ...]
    norm: Norm
    targeted: bool
    covers: bool
    stage: int = 0
    keep: Keep | None = None
    detector_unaware: bool = False
    not_reproduced: list[int] = field(default_factory=list)
    _candidates: list[Candidate] = field(default_factory=list)

    def add(self, candidate: Candidate) -> None:
        """Take a candidate; ask about it when there are enough for a batch."""
        self._candidates.append(candidate)
        if (
            len(self._candidates) > 3 * self.network.batch_size // 2
        ):  # never the attack's own batches
            self.flush()

    def flush(self) -> None:
        """Ask about all states that wait."""
        candidates, self._candidates = self._candidates, []
        if not candidates:
            return
        predictions = verify(
            self.network,
            torch.stack([one.clean for one in candidates]).cpu(),
            torch.stack([one.x_adv for one in candidates]).cpu(),
            self.goals[torch.tensor([one.owner for one in candidates])],
            torch.tensor([self.radii[one.point] for one in candidates], dtype=torch.float64),
            self.norm,
            targeted=self.targeted,
            examples=self.examples[torch.tensor([one.owner for one in candidates])],
        )
        columns = (column.tolist() for column in predictions)
        scores = self.outcomes.candidate_rejection_margin
        for candidate, verified, size, score in zip(candidates, *columns, strict=True):
            last = None if self.covers and candidate.found else candidate.point + 1
            points = candidate.owner, slice(candidate.point, last)
            scores[points] = np.fmin(scores[points], score)
            if verified and candidate.found:
                self._record(candidate, points, size)
            elif candidate.found and not (self.detector_unaware and score > 0):
                self.not_reproduced.append(candidate.owner)

    def _record(self, candidate: Candidate, points: tuple[int, slice], size: float) -> None:
        """Record a candidate that holds. size: its norm."""
        new = ~self.outcomes.broken[points]
        self.outcomes.stage[points][new] = self.stage
        self.outcomes.broken[points] = True
        self.outcomes.distance[candidate.owner] = min(self.outcomes.distance[candidate.owner], size)
        if self.keep is not None:
            self.keep(candidate.owner, candidate.point, candidate.x_adv.cpu(), size)


class Verified(NamedTuple):
    """What came of asking again about n points.

    verified: (n,) bool, whether they are adversarial examples. distance: (n,) float64, their norms.
    scores: (n,) float64, how far a network with a reject option is from doing so, positive where it
    does; NaN where the classifier within it is not fooled either, or the point is not in the ball.
    """

    verified: Tensor
    distance: Tensor
    scores: Tensor


def verify(
    network: Network,
    clean: Tensor,
    x_adv: Tensor,
    goals: Tensor,
    epsilon: Tensor,
    norm: Norm,
    *,
    targeted: bool,
    examples: Tensor | None = None,
) -> Verified:
    """Which adversarial examples hold when the model is asked again.

    Asked in float32, without autograd, among other neighbours than in the attack, and of a
    stochastic network before its second independent vote; each must be finite, in [0, 1], and
    within epsilon (n,) of its clean image in float64 with zero tolerance. To be rejected, by a
    network that may do so, is not to be misclassified.

    clean, x_adv: (n, C, H, W). goals: (n,), the labels to leave or the classes to reach. examples:
    (n,) int64, what the votes of a stochastic model depend on; by default the positions.
    """
    rule = decision_of(network, targeted=targeted)
    inside = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(dim=1)  # false for NaN
    distance = measure(x_adv.double() - clean.double(), norm)
    inside &= distance <= epsilon.double()
    examples = torch.arange(len(x_adv)) if examples is None else examples
    order = torch.arange(len(x_adv)).flip(0)
    asked = torch.where(inside.reshape(-1, *[1] * (x_adv.dim() - 1)), x_adv, clean).float()[order]
    wrong = torch.zeros(len(x_adv), dtype=torch.bool)
    scores = torch.full_like(distance, torch.nan)
    size = 3 * network.batch_size // 2 + 1  # never the attack's own batches
    for rows, images in zip(order.split(size), asked.split(size), strict=True):
        found = prediction(network, images, examples[rows], SECOND)
        answer, y = Votes(*(one.cpu() for one in found)), goals[rows]
        wrong[rows] = rule.adversarial(rule.read(answer.whole, y), y)
        scores[rows] = rule.candidate_margin(answer, y).masked_fill(~inside[rows], torch.nan)
    return Verified(inside & wrong, distance, scores)
