"""The judge: what a search found is asked about again, and booked when it holds."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .book import Book
from .network import Network
from .threat import Norm
from .verify import verify

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
