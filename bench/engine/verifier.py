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
from ..victim.model import Network
from ..victim.oracle import fooled
from ..victim.rejection import reading, surplus
from ..victim.voting import SECOND, verdict
from .outcomes import Book

Keep = Callable[[int, int, Tensor], None]


@dataclass(frozen=True)
class Claim:
    """An adversarial example of one owner at one point of the grid. clean, x_adv: (C, H, W).

    found: False for where a try ended that found none, to be weighed but not booked as broken.
    """

    owner: int
    point: int
    clean: Tensor
    x_adv: Tensor
    found: bool = True


@dataclass
class Judge:
    """Verifies claims, a batch at a time, and books those that hold.

    goals, examples: (N,) int64, by owner, as in Field. radii: of the grid. covers: whether what
    breaks one point breaks all above it. member: the attack's place in the cascade. keep: told
    (owner, point, x_adv on the CPU) of each claim that holds. refuted: the owners of those that did
    not. oblivious: whether the claims are of having fooled the classifier within a network that may
    reject: to be rejected then refutes nothing.
    """

    network: Network
    book: Book
    goals: Tensor
    examples: Tensor
    radii: tuple[float, ...]
    norm: Norm
    targeted: bool
    covers: bool
    member: int = 0
    keep: Keep | None = None
    oblivious: bool = False
    refuted: list[int] = field(default_factory=list)
    _claims: list[Claim] = field(default_factory=list)

    def hear(self, claim: Claim) -> None:
        """Take a claim; ask about it when there are enough for a batch."""
        self._claims.append(claim)
        if len(self._claims) > 3 * self.network.batch_size // 2:  # never the attack's own batches
            self.settle()

    def settle(self) -> None:
        """Ask about all claims that wait."""
        claims, self._claims = self._claims, []
        if not claims:
            return
        verdicts = verify(
            self.network,
            torch.stack([one.clean for one in claims]).cpu(),
            torch.stack([one.x_adv for one in claims]).cpu(),
            self.goals[torch.tensor([one.owner for one in claims])],
            torch.tensor([self.radii[one.point] for one in claims], dtype=torch.float64),
            self.norm,
            targeted=self.targeted,
            examples=self.examples[torch.tensor([one.owner for one in claims])],
        )
        columns = (column.tolist() for column in verdicts)
        for claim, held, size, score in zip(claims, *columns, strict=True):
            last = None if self.covers and claim.found else claim.point + 1
            points = claim.owner, slice(claim.point, last)
            if self.network.rejects:
                scores = self.book.scores
                scores[points] = np.fmin(scores[points], score)
            if held and claim.found:
                self._book(claim, points, size)
            elif claim.found and not (self.oblivious and score > 0):
                self.refuted.append(claim.owner)

    def _book(self, claim: Claim, points: tuple[int, slice], size: float) -> None:
        """Book a claim that holds. size: its norm."""
        new = ~self.book.broken[points]
        self.book.member[points][new] = self.member
        self.book.broken[points] = True
        self.book.distance[claim.owner] = min(self.book.distance[claim.owner], size)
        if self.keep is not None:
            self.keep(claim.owner, claim.point, claim.x_adv.cpu())


class Verdicts(NamedTuple):
    """What came of asking again about n points.

    holds: (n,) bool, whether they are adversarial examples. distance: (n,) float64, their norms.
    scores: (n,) float64, how far a network that may reject is from doing so, positive where it
    does; NaN where the classifier within it is not fooled either, or the point is not in the ball.
    """

    holds: Tensor
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
) -> Verdicts:
    """Which adversarial examples hold when the model is asked again.

    Asked in float32, without autograd, among other neighbours than in the attack, and of a
    stochastic network before its second jury; each must be finite, in [0, 1], and within epsilon
    (n,) of its clean image in float64 with zero tolerance.
    To be rejected, by a network that may do so, is not to be misclassified.

    clean, x_adv: (n, C, H, W). goals: (n,), the labels to leave or the classes to reach. examples:
    (n,) int64, what the votes of a stochastic model hang on; by default the positions.
    """
    read = reading(rejecting=network.rejects, oblivious=False, targeted=targeted)
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
        found = verdict(network, images, examples[rows], SECOND)
        whole, classifier = found.whole.cpu(), found.classifier.cpu()
        wrong[rows] = fooled(read(whole, goals[rows]), goals[rows], targeted=targeted)
        if network.rejects:
            let_down = inside[rows] & fooled(classifier, goals[rows], targeted=targeted)
            scores[rows] = surplus(whole).double().masked_fill(~let_down, torch.nan)
    return Verdicts(inside & wrong, distance, scores)
