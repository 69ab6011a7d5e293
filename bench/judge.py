"""The judge: what a search found is asked about again, and booked when it holds."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .book import Book
from .network import Network
from .threat import Norm
from .verify import verify

Keep = Callable[[int, int, Tensor], None]


@dataclass(frozen=True)
class Claim:
    """An adversarial example of one owner at one point of the grid. clean, x_adv: (C, H, W)."""

    owner: int
    point: int
    clean: Tensor
    x_adv: Tensor


@dataclass
class Judge:
    """Verifies claims, a batch at a time, and books those that hold.

    goals, examples: (N,) int64, by owner, as in Field. radii: of the grid. covers: whether what
    breaks one point breaks all above it. member: the attack's place in the cascade. keep: told
    (owner, point, x_adv on the CPU) of each claim that holds. refuted: the owners of those that did
    not.
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
        holds, distance = verify(
            self.network,
            torch.stack([one.clean for one in claims]).cpu(),
            torch.stack([one.x_adv for one in claims]).cpu(),
            self.goals[torch.tensor([one.owner for one in claims])],
            torch.tensor([self.radii[one.point] for one in claims], dtype=torch.float64),
            self.norm,
            targeted=self.targeted,
            examples=self.examples[torch.tensor([one.owner for one in claims])],
        )
        for claim, held, size in zip(claims, holds.tolist(), distance.tolist(), strict=True):
            if not held:
                self.refuted.append(claim.owner)
                continue
            last = None if self.covers else claim.point + 1
            points = claim.owner, slice(claim.point, last)
            new = ~self.book.broken[points]
            self.book.member[points][new] = self.member
            self.book.broken[points] = True
            self.book.distance[claim.owner] = min(self.book.distance[claim.owner], size)
            if self.keep is not None:
                self.keep(claim.owner, claim.point, claim.x_adv.cpu())
