"""The engine: keeps a batch full of examples, each at its own epsilon, restart and step.

Examples are independent. One that is broken, out of steps or out of queries leaves its slot to the
next. Attacks know nothing of it: they see a Problem and advance their state.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from . import rows as table
from .errors import CellError
from .network import Network
from .protocols import Access, Attack, Problem, Progress, WholeAttack
from .random import Draws
from .search import Bracket, Exhaustive, Narrowing, Order, Search, Try
from .threat import Ball, Epsilon, Norm, make_ball, measure, per_example
from .victim import UNLIMITED, GuardedVictim, Ledger

_WALK = 0.65  # of an attack's steps: as many as a walk may take
_LONG = 4.0  # steps of a walk are as long as those of an attack that takes so many

SearchName = Literal["bracket", "exhaustive"]


@dataclass(frozen=True)
class Member:
    """One attack of a cascade, and how often it starts anew on an example that resists."""

    attack: Attack[Any] | WholeAttack
    restarts: int = 1


@dataclass(frozen=True)
class Settings:
    """How a cell is run.

    query_budget: queries for each example, over the whole curve (for each epsilon of an exhaustive
    search). early_leaving=False keeps broken examples to the last step, for timing work.
    """

    norm: Norm
    grid: tuple[Epsilon, ...]
    seed: int = 0
    search: SearchName = "bracket"
    query_budget: int | None = None
    early_leaving: bool = True
    targeted: bool = False

    @property
    def radii(self) -> tuple[float, ...]:
        """The grid as numbers."""
        return tuple(one.value for one in self.grid)


@dataclass
class Found:
    """What the attacks did to one example.

    images: point of the grid -> the adversarial example that breaks it. broken: all points that
    are broken, by an image of their own or by one found at a smaller epsilon. distance: norm of
    the smallest adversarial perturbation. cut_short: the query budget ended before the search.
    queries_at: point -> queries asked in its tries.
    """

    images: dict[int, Tensor] = field(default_factory=dict)
    broken: set[int] = field(default_factory=set)
    attacked: set[int] = field(default_factory=set)
    distance: float = float("inf")
    cut_short: bool = False
    forward: int = 0
    backward: int = 0
    queries_at: dict[int, int] = field(default_factory=dict)

    @property
    def queries(self) -> int:
        """Queries asked in all."""
        return sum(self.queries_at.values())


@dataclass
class Slots:
    """The batch: one row for each try under way.

    owner: (B,) int64, the example's position in the run. example: the number that its randomness
    hangs on. point: the grid's. step, restart: done so far. limit: steps to take at most.
    brief: whether it is a single long step, whose end is not asked about.
    """

    owner: Tensor
    example: Tensor
    point: Tensor
    restart: Tensor
    step: Tensor
    limit: Tensor
    brief: Tensor
    start_points: Tensor
    warm: Tensor
    ledger: Ledger
    state: Any


@dataclass
class _Whole:
    x_adv: Tensor


@dataclass(frozen=True)
class _OneStep:
    """A whole attack as an attack of a single step."""

    attack: WholeAttack
    steps: int = 1

    @property
    def access(self) -> Access:
        return self.attack.access

    @property
    def monotone(self) -> bool:
        return bool(getattr(self.attack, "monotone", True))

    def start(self, problem: Problem) -> _Whole:
        return _Whole(problem.x)

    def step(self, problem: Problem, state: _Whole) -> _Whole:
        return _Whole(self.attack.run(problem))


class Engine:
    """Runs a cascade of attacks over examples, none of which is misclassified when clean.

    images: (N, C, H, W) float32 in [0, 1] on any device. goals: (N,) int64, the labels to leave, or
    the classes to reach. examples: (N,) int64, the numbers that their randomness hangs on.
    slots: how many examples are under attack at once.
    """

    def __init__(
        self,
        network: Network,
        images: Tensor,
        goals: Tensor,
        examples: Tensor,
        settings: Settings,
        slots: int,
        progress: Progress,
    ) -> None:
        self.network = network
        self.images = images
        self.goals = goals
        self.examples = examples
        self.settings = settings
        self.slots = slots
        self.progress = progress
        self.found = [Found() for _ in range(len(images))]

    def run(self, members: Sequence[Member]) -> list[Found]:
        """Run the attacks one after another, each on what the ones before it left.

        Raises: CellError when the model or an attack misbehaves.
        """
        for number, member in enumerate(members):
            attack: Any = member.attack
            if isinstance(attack, WholeAttack):
                attack = _OneStep(attack)
            searches = [self._search(attack, member, one, number) for one in self.found]
            note = f"attack {number + 1} of {len(members)}" if len(members) > 1 else ""
            self._pursue(attack, searches, note)
            for found, search in zip(self.found, searches, strict=True):
                found.attacked |= search.attacked
                found.broken |= search.broken
                found.images = search.images
        return self.found

    def _search(self, attack: Any, member: Member, found: Found, number: int) -> Search:
        radii = self.settings.radii
        if self.settings.search == "exhaustive":
            return Exhaustive(radii, member.restarts, dict(found.images))
        known = radii, member.restarts, dict(found.images), found.distance
        monotone = getattr(attack, "monotone", True)
        if self.settings.query_budget is not None:  # it may not last for more than the largest
            order: Order = "descend" if monotone else "sweep"
            return Bracket(*known, order=order, warm=attack.steps > 1)
        if not monotone:
            return Bracket(*known, order="ascend")
        if attack.steps == 1:
            return Bracket(*known, order="descend" if found.images else "bisect")
        return Narrowing(*known, walk=math.ceil(_WALK * attack.steps))

    def _pursue(self, attack: Any, searches: list[Search], note: str) -> None:
        """Keep the slots full until no search asks for another try."""
        tries = ((owner, search.next()) for owner, search in enumerate(searches))
        waiting = deque((owner, one) for owner, one in tries if one is not None)
        total = len(waiting)
        slots = self._enter(attack, _pop(waiting, self.slots)) if waiting else None
        while slots is not None:
            problem = self._problem(attack, slots)
            slots.state = attack.step(problem, slots.state)
            slots.step = slots.step + 1
            leaving = self._leaving(attack, slots, problem)
            if not len(leaving):
                continue
            waiting.extend(self._leave(table.take(slots, leaving), searches))
            slots = self._refill(attack, slots, leaving, waiting)
            under_way = 0 if slots is None else len(slots.owner)
            self.progress.update(total - len(waiting) - under_way, total, note)

    def _enter(self, attack: Any, tries: Sequence[tuple[int, Try]]) -> Slots:
        """Put tries into new slots, and let the attack begin there."""
        device, settings = self.network.device, self.settings

        def column(values: Iterable[int]) -> Tensor:
            return torch.tensor(list(values), dtype=torch.int64, device=device)

        owner = torch.tensor([one for one, _ in tries])
        x = self.images[owner.to(self.images.device)].to(device)
        radii = [settings.radii[one.point] for _, one in tries]
        ball = make_ball(settings.norm, x, torch.tensor(radii, dtype=torch.float64, device=device))
        brief = column(one.brief for _, one in tries).bool()
        ball.pace[brief] = max(1.0, attack.steps / _LONG)
        slots = Slots(
            owner=owner.to(device),
            example=self.examples[owner].to(device),
            point=column(one.point for _, one in tries),
            restart=column(one.restart for _, one in tries),
            step=column(0 for _ in tries),
            limit=column(1 if one.brief else attack.steps for _, one in tries),
            brief=brief,
            start_points=x,
            warm=column(one.start is not None for _, one in tries).bool(),
            ledger=Ledger.open(
                ball,
                self.goals[owner].to(device),
                column(self._allowance(self.found[at], one.point) for at, one in tries),
            ),
            state=None,
        )
        earlier = {
            row: one.start for row, (_, one) in enumerate(tries) if isinstance(one.start, Tensor)
        }
        if earlier:
            points = torch.stack(list(earlier.values())).to(device)
            slots.start_points = _scale_into(ball, x.index_copy(0, column(earlier), points))
        slots.state = attack.start(self._problem(attack, slots))
        return slots

    def _allowance(self, found: Found, point: int) -> int:
        """Queries left: of the whole curve's budget, or of this point's when each is on its own."""
        if self.settings.query_budget is None:
            return UNLIMITED
        alone = self.settings.search == "exhaustive"
        spent = found.queries_at.get(point, 0) if alone else found.queries
        return self.settings.query_budget - spent

    def _problem(self, attack: Any, slots: Slots) -> Problem:
        targeted = self.settings.targeted
        return Problem(
            x=slots.ledger.ball.x,
            y=slots.ledger.y,
            targeted=targeted,
            ball=slots.ledger.ball,
            victim=GuardedVictim(self.network, slots.ledger, attack.access, targeted=targeted),
            draws=Draws(self.settings.seed, slots.example, slots.restart, slots.step),
            step=slots.step,
            start_points=slots.start_points,
            warm=slots.warm,
        )

    def _leaving(self, attack: Any, slots: Slots, problem: Problem) -> Tensor:
        """(n,) int64: rows that are done, their last iterates judged at the price of a query."""
        ledger = slots.ledger
        over = slots.step >= slots.limit
        judged = table.where(over & ~slots.brief & ~ledger.broken & ~ledger.exhausted)
        if len(judged) and not getattr(attack, "asks_iterates", False):
            problem.victim.labels(_iterate(slots)[judged], judged)
        done = over | ledger.exhausted
        return table.where(done | ledger.broken if self.settings.early_leaving else done)

    def _leave(self, gone: Slots, searches: list[Search]) -> list[tuple[int, Try]]:
        """Book what the rows that leave have shown; return the tries that they ask for next."""
        ledger = gone.ledger
        last, nearest = _iterate(gone).cpu(), ledger.nearest.cpu()
        if not last[~ledger.exhausted.cpu()].isfinite().all():
            raise CellError("the attack's x_adv is not finite")
        columns = (gone.owner, gone.point, ledger.distance, ledger.lead, ledger.exhausted)
        counts = (ledger.forward, ledger.backward, ledger.queries)
        again = []
        for row, (owner, point, distance, lead, spent, forward, backward, queries) in enumerate(
            zip(*(column.tolist() for column in columns + counts), strict=True)
        ):
            found, search = self.found[owner], searches[owner]
            found.forward += forward
            found.backward += backward
            found.queries_at[point] = found.queries_at.get(point, 0) + queries
            found.distance = min(found.distance, distance)
            hit = nearest[row].clone() if distance < float("inf") else None
            search.report(last[row].clone(), hit, distance, spent=spent, lead=lead)
            following = search.next()
            if following is not None:
                again.append((owner, following))
            found.cut_short |= spent and not search.decided
        return again

    def _refill(
        self, attack: Any, slots: Slots, free: Tensor, waiting: deque[tuple[int, Try]]
    ) -> Slots | None:
        """Give free rows to waiting tries; without enough of them the batch shrinks."""
        tries = _pop(waiting, len(free))
        if tries:
            slots = table.put(slots, free[: len(tries)], self._enter(attack, tries))
        if len(tries) == len(free):
            return slots
        kept = torch.ones(len(slots.owner), dtype=torch.bool, device=free.device)
        kept[free[len(tries) :]] = False
        return table.take(slots, table.where(kept)) if kept.any() else None


def _pop(waiting: deque[tuple[int, Try]], most: int) -> list[tuple[int, Try]]:
    return [waiting.popleft() for _ in range(min(most, len(waiting)))]


def _iterate(slots: Slots) -> Tensor:
    """(B, C, H, W): the attack's iterates, refused when they cannot be images."""
    x_adv = getattr(slots.state, "x_adv", None)
    shape = slots.ledger.ball.x.shape
    if not isinstance(x_adv, Tensor) or x_adv.shape != shape:
        raise CellError(f"the attack's state must hold x_adv of shape {tuple(shape)}")
    return x_adv.detach()


def _scale_into(ball: Ball, points: Tensor) -> Tensor:
    """Scale perturbations to fill the ball; clean images stay as they are."""
    delta = points - ball.x
    size = measure(delta, ball.norm).clamp(min=1e-12)
    return ball.project(ball.x + delta * per_example(ball.epsilon / size, delta).to(delta.dtype))
