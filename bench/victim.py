"""The victim: the model as an attack sees it, its access level, counts and budgets enforced."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import rows as table
from .errors import AccessDenied
from .network import Network
from .protocols import Access, Answer
from .threat import Ball, measure, per_example

UNLIMITED = 2**62


@dataclass
class Ledger:
    """What the harness keeps on each example of a batch of B while it is under attack.

    ball: around the clean images. y: (B,), the goals. forward, backward, queries: (B,) int64,
    counted. allowance: (B,) int64, queries that are left. distance: (B,) float64, norm of the
    smallest adversarial perturbation seen, infinite before the first; nearest: (B, C, H, W), that
    point. lead: (B,), how far the logits last seen were from the goal, NaN before the first.
    """

    ball: Ball
    y: Tensor
    forward: Tensor
    backward: Tensor
    queries: Tensor
    allowance: Tensor
    distance: Tensor
    nearest: Tensor
    lead: Tensor

    @classmethod
    def open(cls, ball: Ball, y: Tensor, allowance: Tensor) -> "Ledger":
        """Begin with nothing counted and nothing found."""
        zeros = torch.zeros_like(y)
        distance = torch.full(y.shape, torch.inf, dtype=torch.float64, device=y.device)
        counts = zeros, zeros.clone(), zeros.clone()
        return cls(ball, y, *counts, allowance, distance, ball.x.clone(), distance * torch.nan)

    @property
    def broken(self) -> Tensor:
        """(B,) bool: an adversarial point inside the ball has been seen."""
        return self.distance <= self.ball.epsilon

    @property
    def exhausted(self) -> Tensor:
        """(B,) bool: nothing left of the query budget."""
        return self.allowance <= 0


class GuardedVictim:
    """Answers for a batch of examples, as bench.protocols.Victim describes.

    rows: (n,) int64 when the attack is shown only some of the ledger's examples.
    """

    def __init__(
        self,
        network: Network,
        ledger: Ledger,
        access: Access,
        *,
        targeted: bool,
        rows: Tensor | None = None,
    ) -> None:
        self._network = network
        self._ledger = ledger
        self._access: Access = access
        self._targeted = targeted
        self._rows = torch.arange(len(ledger.y), device=ledger.y.device) if rows is None else rows

    @property
    def access(self) -> Access:
        """The access level that is enforced."""
        return self._access

    @property
    def n_classes(self) -> int:
        """How many classes the victim tells apart."""
        return self._network.n_classes

    @property
    def remaining(self) -> Tensor:
        """(B,) int64: queries that each example may still ask."""
        return self._ledger.allowance[self._rows]

    def gradient(self, x: Tensor, objective: Callable[[Tensor], Tensor]) -> Answer:
        """One forward and one backward pass for each example. White-box only."""
        self._require("gradients", "white-box")
        x, admitted = self._admit(x, self._rows)
        answer = self._network.gradient(x, objective)
        self._ledger.backward.index_add_(0, self._rows, admitted.long())
        self._observe(x, answer.logits, self._rows, admitted)
        if admitted.all():
            return answer
        nan = torch.where(admitted, 0.0, torch.nan)
        return Answer(
            answer.gradient + per_example(nan, x),
            answer.loss + nan,
            answer.logits + nan[:, None],
        )

    def scores(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N, K) logits. White-box or score access."""
        self._require("scores", "white-box", "score")
        logits, admitted = self._ask(x, rows)
        return logits if admitted.all() else logits.masked_fill(~admitted[:, None], torch.nan)

    def labels(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N,) predicted classes. Any access."""
        logits, admitted = self._ask(x, rows)
        return logits.argmax(dim=1).masked_fill(~admitted, -1)

    def _ask(self, x: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        owners = self._rows if rows is None else self._rows[rows]
        x, admitted = self._admit(x.detach(), owners)
        logits = self._network.logits(x)
        self._observe(x, logits, owners, admitted)
        return logits, admitted

    def _require(self, what: str, *levels: Access) -> None:
        if self._access not in levels:
            raise AccessDenied(f"the attack asked a victim with {self._access} access for {what}")

    def _admit(self, x: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
        """Count the inputs against their owners' budgets; put the clean image in the others'."""
        ledger = self._ledger
        if len(x) != len(owners):
            raise ValueError(f"{len(x)} inputs for {len(owners)} examples: pass rows")
        ranks = 0 if owners is self._rows else _ranks(owners, len(ledger.y))
        admitted = ledger.allowance[owners] > ranks
        counted = admitted.long()
        for column, sign in ((ledger.forward, 1), (ledger.queries, 1), (ledger.allowance, -1)):
            column.index_add_(0, owners, sign * counted)
        if not admitted.all():
            x = torch.where(per_example(admitted, x), x, ledger.ball.x[owners])
        return x, admitted

    def _observe(self, x: Tensor, logits: Tensor, owners: Tensor, admitted: Tensor) -> None:
        """Remember the adversarial point nearest to each clean image."""
        ledger = self._ledger
        leads = lead(logits, ledger.y[owners], targeted=self._targeted).double()
        ledger.lead.scatter_reduce_(0, owners, leads, "amin", include_self=False)
        hit = table.where(fooled(logits, ledger.y[owners], targeted=self._targeted) & admitted)
        if not len(hit):
            return
        points, owners = x.detach()[hit], owners[hit]
        inside = ((points >= 0) & (points <= 1)).flatten(1).all(dim=1)
        distance = measure(points.double() - ledger.ball.x[owners].double(), ledger.ball.norm)
        distance = torch.where(inside, distance, torch.inf)
        nearest = ledger.distance.scatter_reduce(0, owners, distance, "amin")
        better = (distance == nearest[owners]) & (distance < ledger.distance[owners])
        better = table.where(better)
        first = torch.full_like(ledger.y, len(points))  # of equals, the one asked first
        first = first.scatter_reduce(0, owners[better], better, "amin")
        improved = table.where(first < len(points))
        ledger.nearest[improved] = points[first[improved]]
        ledger.distance = nearest


def fooled(logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
    """(N,) bool: whether the prediction is what the attack wants: not y, or y when targeted."""
    predicted = logits.argmax(dim=1)
    return predicted == y if targeted else predicted != y


def lead(logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
    """(N,): how far the logit of y is above the best other, or below it when targeted."""
    own = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return other - own if targeted else own - other


def _ranks(owners: Tensor, examples: int) -> Tensor:
    """(N,) int64: how many inputs before this one have the same owner."""
    order = owners.argsort(stable=True)
    counts = torch.bincount(owners, minlength=examples)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(owners)
    ranks[order] = torch.arange(len(owners), device=owners.device) - starts[owners[order]]
    return ranks
