"""The batch under attack: one row for each attempt under way."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..api.errors import CellError
from ..api.threat import Ball, Norm, make_ball, measure, per_example
from ..victim import rows as table
from ..victim.counters import AttackCounters
from .epsilon_search import Attempt, Search


@dataclass
class PendingAttempt:
    """An example under attack: its position in the run, its search, and the attempt that is next.

    clean: (C, H, W), its image, on the device.
    """

    owner: int
    search: Search
    attempt: Attempt
    clean: Tensor


@dataclass
class ActiveBatch:
    """One row for each attempt under way, B of them.

    example: (B,) int64, the number that seeds its randomness. restart: (B,). step: (B,), done so
    far. limit: (B,), steps to take at most. single_step: (B,) bool, a single long step whose end is
    not asked about. enough: (B,) float64, the norm of an adversarial example that ends the attempt.
    start_points, warm: as in Problem. state: the attack's.
    """

    example: Tensor
    restart: Tensor
    step: Tensor
    limit: Tensor
    single_step: Tensor
    enough: Tensor
    start_points: Tensor
    warm: Tensor
    counters: AttackCounters
    state: Any

    def __len__(self) -> int:
        return len(self.step)

    @property
    def over(self) -> Tensor:
        """(B,) bool: out of steps."""
        return self.step >= self.limit

    @property
    def won(self) -> Tensor:
        """(B,) bool: an adversarial point has been found that is near enough."""
        return self.counters.distance <= self.enough

    @property
    def iterates(self) -> Tensor:
        """(B, C, H, W): the attack's iterates."""
        x_adv: Tensor = self.state.x_adv
        return x_adv.detach()

    def check(self) -> None:
        """Look whether the attack's iterates can be images.

        Raises: CellError.
        """
        x_adv = getattr(self.state, "x_adv", None)
        shape = self.counters.ball.x.shape
        if not isinstance(x_adv, Tensor) or x_adv.shape != shape:
            raise CellError(f"the attack's state must hold x_adv of shape {tuple(shape)}")

    def rest(self, rows: Tensor) -> None:
        """Leave some rows, (n,) int64, without an attempt: they ask for nothing more."""
        self.limit.index_fill_(0, rows, 0)
        self.counters.distance.index_fill_(0, rows, 0.0)

    def refill(self, rows: Tensor, other: "ActiveBatch") -> None:
        """Put other attempts into some rows, (n,) int64."""
        self.state = table.put(self.state, rows, other.state)  # it may share memory with the rest
        for one in fields(self):
            if one.name != "state":
                table.write(getattr(self, one.name), rows, getattr(other, one.name))


def open_batch(
    pending: Sequence[PendingAttempt],
    steps: int,
    step_multiplier: float,
    norm: Norm,
    radii: Sequence[float],
    goals: Tensor,
    examples: Tensor,
    allowances: Sequence[int],
) -> ActiveBatch:
    """Rows of the batch for some candidates, before the attack has begun there.

    steps, step_multiplier: the attack's; a long step is step_multiplier times as long as usual.
    radii: of the grid.
    goals, examples: (N,) int64, by owner. allowances: queries that each candidate has left.
    """
    x = torch.stack([one.clean for one in pending])
    device = x.device

    def column(values: Iterable[float], dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.tensor(list(values), dtype=dtype, device=device)

    attempts = [one.attempt for one in pending]
    owners = torch.tensor([one.owner for one in pending])
    ball = make_ball(norm, x, column((radii[one.point] for one in attempts), torch.float64))
    single_step = column(one.single_step for one in attempts).bool()
    ease = column((one.ease for one in attempts), torch.float64)
    ball.step_multiplier[single_step] = (ease * step_multiplier)[single_step]
    grid = column(radii, torch.float64).expand(len(attempts), -1)
    enough = (one.point if one.enough is None else one.enough for one in attempts)
    start_points = x.clone()
    earlier = {row: one.start for row, one in enumerate(attempts) if isinstance(one.start, Tensor)}
    if earlier:
        points = torch.stack(list(earlier.values()))
        start_points = _scale_into(ball, x.index_copy(0, column(earlier), points))
    return ActiveBatch(
        example=examples[owners].to(device),
        restart=column(one.restart for one in attempts),
        step=torch.zeros(len(attempts), dtype=torch.int64, device=device),
        limit=column(1 if one.single_step else steps for one in attempts),
        single_step=single_step,
        enough=column((radii[point] for point in enough), torch.float64),
        start_points=start_points,
        warm=column(one.start is not None for one in attempts).bool(),
        counters=AttackCounters.open(
            ball, goals[owners].to(device), column(allowances), grid.clone()
        ),
        state=None,
    )


def _scale_into(ball: Ball, points: Tensor) -> Tensor:
    """Scale perturbations to fill the ball; clean images stay as they are."""
    delta = points - ball.x
    size = measure(delta, ball.norm).clamp(min=1e-12)
    return ball.project(ball.x + delta * per_example(ball.epsilon / size, delta).to(delta.dtype))
