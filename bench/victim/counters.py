"""The counters: what is counted and found on each example while it is under attack."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..api.shared.outcome_columns import COUNTED
from ..api.threat import Ball, measure, per_example

UNLIMITED = 2**62
LOSS, MODEL = 1, 2  # whose fault it is that a gradient was not finite
_ROUGH = 1e-5  # relative error of a norm in float32, generously


@dataclass
class AttackCounters:
    """What the harness keeps on each example of a batch of B while it is under attack.

    ball: around the clean images. y: (B,), the goals. allowance: (B,) int64, queries that are left.
    grid: (B, E) float64, the radii of interest. counts: the columns of `COUNTED` by name, (B,)
    int64, or (B, E) of those counted by "first": `solved` is how many queries had been asked when
    an adversarial point within each radius was first seen, 0 before; not kept for white-box
    attacks. distance: (B,) float64, norm of the smallest adversarial perturbation seen, infinite
    before the first; nearest: (B, C, H, W), that point. margin: (B,), how far the logits last seen
    were from the goal, NaN before the first and when nobody wants to know. fault: (B,) int64,
    whether a gradient that the attack was given was not finite, and whose fault it was: 0 none was,
    LOSS the attack's own loss's, MODEL the model's.
    """

    ball: Ball
    y: Tensor
    allowance: Tensor
    grid: Tensor
    counts: dict[str, Tensor]
    distance: Tensor
    nearest: Tensor
    margin: Tensor
    fault: Tensor

    @classmethod
    def open(cls, ball: Ball, y: Tensor, allowance: Tensor, grid: Tensor) -> "AttackCounters":
        """Begin with nothing counted and nothing found."""
        counts = {
            one.name: torch.zeros_like(grid if one.count == "first" else y, dtype=torch.int64)
            for one in COUNTED
        }
        distance = torch.full(y.shape, torch.inf, dtype=torch.float64, device=y.device)
        unknown, none = distance * torch.nan, torch.zeros_like(y)
        return cls(ball, y, allowance, grid, counts, distance, ball.x.clone(), unknown, none)

    @property
    def broken(self) -> Tensor:
        """(B,) bool: an adversarial point inside the ball has been seen."""
        return self.distance <= self.ball.epsilon

    @property
    def exhausted(self) -> Tensor:
        """(B,) bool: nothing left of the query budget."""
        return self.allowance <= 0

    def admit(
        self, x: Tensor, owners: Tensor | None, going: Tensor | None, *, limited: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Count inputs (N, C, H, W) against their owners' budgets; the clean image for the others.

        owners: (N,), whose they are; None when one for each. going: (B,) bool, the examples that
        may ask; None for all. limited: whether there are budgets to keep. Returns (N,) bool beside
        the inputs, which of them are admitted; None for all.
        """
        examples = len(self.y)
        count = examples if owners is None else len(owners)
        if len(x) != count:
            raise ValueError(f"{len(x)} inputs for {count} examples: pass rows")
        admitted = going if owners is None or going is None else going[owners]
        if limited:
            before = 0 if owners is None else ranks_of(owners, examples)
            allowed = (self.allowance if owners is None else self.allowance[owners]) > before
            admitted = allowed if admitted is None else admitted & allowed
        asked = per_owner(owners, admitted, examples)
        self.counts["forward"] += asked
        self.counts["queries"] += asked
        if limited and admitted is not None:
            self.allowance -= asked
            clean = self.ball.x if owners is None else self.ball.x[owners]
            x = torch.where(per_example(admitted, x), x, clean)
        return x, admitted

    def distance_of(self, points: Tensor, rows: Tensor) -> Tensor:
        """(n,) float64: how far points (n, C, H, W) are off the rows' clean images.

        Infinite outside [0, 1].
        """
        inside = (points.clamp(0.0, 1.0) == points).flatten(1).all(dim=1)
        distance = measure(points.double() - self.ball.x[rows].double(), self.ball.norm)
        return torch.where(inside, distance, torch.inf)

    def note_solved(self, rows: Tensor, distance: Tensor, asked: Tensor) -> None:
        """Note which adversarial points were the first within each radius.

        rows, distance, asked: (n,): whose they are, how far, and how many queries had been asked.
        """
        within = distance[:, None] <= self.grid[rows]
        when = torch.where(within, asked[:, None], UNLIMITED)
        solved = self.counts["solved"]
        first = torch.full_like(solved, UNLIMITED)
        first.scatter_reduce_(0, rows[:, None].expand_as(when), when, "amin")
        new = (solved == 0) & (first < UNLIMITED)
        solved.copy_(torch.where(new, first, solved))

    def usable(
        self,
        gradient: Tensor,
        slope: Tensor,
        admitted: Tensor | None,
        owners: Tensor | None = None,
    ) -> Tensor:
        """A gradient (N, C, H, W), zero where it is not finite, which is noted of the example.

        So an attack goes on along the pixels that have one, and its other examples as ever.
        slope: (N, K), of the loss by the logits. admitted: (N,) bool, the inputs that count; None
        for all. owners: (N,), whose they are; None when one for each.
        """
        if not gradient.is_cuda and gradient.detach().sum().isfinite():
            return gradient  # one pass; a GPU would be waited for
        whose = torch.where(slope.isfinite().all(dim=1), MODEL, LOSS)
        fault = torch.where(gradient.isfinite().flatten(1).all(dim=1), 0, whose)
        fault = fault if admitted is None else fault * admitted
        if owners is None:
            self.fault.copy_(self.fault.maximum(fault))
        else:
            self.fault.scatter_reduce_(0, owners, fault, "amax")
        return gradient.nan_to_num(0.0, 0.0, 0.0)

    def note_margin(self, margin: Tensor, admitted: Tensor | None, owners: Tensor | None) -> None:
        """Note how far inputs (N,) were from the goal, of each example's the nearest.

        admitted, owners: as for `usable`.
        """
        if owners is not None:
            margin = margin if admitted is None else margin.masked_fill(~admitted, torch.inf)
            self.margin.scatter_reduce_(0, owners, margin, "amin", include_self=False)
        elif admitted is not None:
            self.margin.copy_(torch.where(admitted, margin, self.margin))
        else:
            self.margin.copy_(margin)

    def remember(self, points: Tensor, rows: Tensor, distance: Tensor) -> None:
        """Keep the points (n, C, H, W) that are nearer than what was known of their rows (n,).

        distance: (n,), infinite where they are not adversarial. One point a row at most.
        """
        before = self.distance[rows]
        nearer = distance < before
        kept = torch.where(per_example(nearer, points), points, self.nearest[rows])
        self.nearest.index_copy_(0, rows, kept)
        self.distance.index_copy_(0, rows, torch.where(nearer, distance, before))

    def remember_probes(self, points: Tensor, owners: Tensor, distance: Tensor) -> None:
        """The same of any number of points for each example; of equals, the one asked first."""
        nearest = self.distance.scatter_reduce(0, owners, distance, "amin")
        better = (distance == nearest[owners]) & (distance < self.distance[owners])
        (better,) = better.nonzero(as_tuple=True)
        first = torch.full_like(self.y, len(points))
        first = first.scatter_reduce(0, owners[better], better, "amin")
        (improved,) = (first < len(points)).nonzero(as_tuple=True)
        self.nearest[improved] = points[first[improved]]
        self.distance.copy_(nearest)

    def fall_back(self, distance: Tensor, nearest: Tensor) -> None:
        """Take earlier finds, (B,) and (B, C, H, W), where none within the ball is known now."""
        without = ~self.broken
        self.distance.copy_(torch.where(without, distance, self.distance))
        self.nearest.copy_(torch.where(per_example(without, nearest), nearest, self.nearest))

    def may_be_nearer(self, x: Tensor, rows: Tensor) -> Tensor:
        """(n,) bool: whether some rows (n,) of x are worth measuring, judged in x's own precision.

        Not when nearer by less than that precision, and what is known breaks the example already.
        """
        known = self.distance[rows]
        if not bool(known.isfinite().any()):
            return torch.ones_like(rows, dtype=torch.bool)
        rough = measure(x[rows] - self.ball.x[rows], self.ball.norm, x.dtype).double()
        epsilon = self.ball.epsilon[rows]
        first = (known > epsilon) & (rough <= epsilon * (1.0 + _ROUGH))
        return first | (rough < known * (1.0 - _ROUGH))


def per_owner(owners: Tensor | None, admitted: Tensor | None, examples: int) -> Tensor | int:
    """(B,) int64: how many inputs each example asks about; 1 when one for each."""
    if owners is None:
        return 1 if admitted is None else admitted.long()
    return torch.bincount(owners if admitted is None else owners[admitted], minlength=examples)


def ranks_of(owners: Tensor, examples: int) -> Tensor:
    """(N,) int64: how many inputs before this one have the same owner."""
    order = owners.argsort(stable=True)
    counts = torch.bincount(owners, minlength=examples)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(owners)
    ranks[order] = torch.arange(len(owners), device=owners.device) - starts[owners[order]]
    return ranks
