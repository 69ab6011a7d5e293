"""The engine: keeps a batch full of examples, each at its own epsilon, restart and step.

Examples are independent. One that is broken, out of steps or out of queries leaves its slot to its
next try, or to the next example. Attacks know nothing of it: they see a Problem and advance their
state. What is held in memory is the slots and a few bytes for each example.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal

import torch
from torch import Tensor

from . import rows as table
from .book import Book
from .errors import CellError
from .judge import Claim, Judge, Keep
from .network import Network
from .protocols import Access, Attack, Images, Problem, Progress, WholeAttack
from .random import Draws
from .search import Bracket, Exhaustive, Narrowing, Order, Search
from .slots import Candidate, Slots, open_slots
from .stepping import Advance, Captured, capture_graph, repeat
from .threat import Epsilon, Norm
from .victim import UNLIMITED, GuardedVictim

_LOOK_EVERY = 4  # steps on a GPU; a look waits for the device, an idle row wastes at most 3
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

    network: gives the verdicts. images: N of them. goals: (N,) int64, the labels to leave, or
    the classes to reach. examples: (N,) int64, the numbers that their randomness hangs on.
    slots: how many examples are under attack at once. fast: a copy of the network for the search.
    keep: told of each adversarial example that holds: its position, its grid point, (C, H, W).
    look_every: steps between two looks at who is done; above 1 the batch keeps its shape, and rows
    that are done idle until the next look. By default 1, on a GPU more.
    """

    def __init__(
        self,
        network: Network,
        images: Images,
        goals: Tensor,
        examples: Tensor,
        settings: Settings,
        slots: int,
        progress: Progress,
        fast: Network | None = None,
        keep: Keep | None = None,
        look_every: int | None = None,
    ) -> None:
        self.network = network
        self.images = images
        self.goals = goals
        self.examples = examples
        self.settings = settings
        self.slots = slots
        self.progress = progress
        self.fast = fast if settings.query_budget is None else None
        self.keep = keep
        self.look_every = look_every or (_LOOK_EVERY if network.device.type == "cuda" else 1)
        self.book = Book.open(len(images), len(settings.grid))

    def run(self, members: Sequence[Member]) -> Book:
        """Run the attacks one after another, each on what the ones before it left.

        What the fast network finds and the true one refutes is searched for again without it.

        Raises: CellError when the model or an attack misbehaves.
        """
        for number, member in enumerate(members):
            note = f"attack {number + 1} of {len(members)}" if len(members) > 1 else ""
            everyone: Sequence[int] = range(len(self.images))
            if self.fast is not None:
                everyone = _Pursuit(self, member, self.fast, everyone, note).run()
            for owner in _Pursuit(self, member, self.network, everyone, note).run():
                self.book.refuted[owner] = True
        return self.book

    def search(self, attack: Any, restarts: int, owner: int) -> Search:
        """Begin an example's way through the grid with one attack."""
        settings, radii = self.settings, self.settings.radii
        known = {
            int(point): torch.empty(0) for point in self.book.broken[owner].nonzero()[0].tolist()
        }
        if settings.search == "exhaustive":
            return Exhaustive(radii, restarts, known)
        start = radii, restarts, known, float(self.book.distance[owner])
        monotone = getattr(attack, "monotone", True)
        if settings.query_budget is not None:  # it may not last for more than the largest
            order: Order = "descend" if monotone else "sweep"
            return Bracket(*start, order=order, warm=attack.steps > 1)
        if not monotone:
            return Bracket(*start, order="ascend")
        if attack.steps == 1:
            return Bracket(*start, order="descend" if known else "bisect")
        return Narrowing(*start)


class _Pursuit:
    """One attack on some of an engine's examples.

    hunting: the network that gradients come from. owners: which examples, by their position.
    """

    def __init__(
        self, engine: Engine, member: Member, hunting: Network, owners: Sequence[int], note: str
    ) -> None:
        attack: Any = member.attack
        self.attack = _OneStep(attack) if isinstance(attack, WholeAttack) else attack
        self.member = member
        self.engine = engine
        self.hunting = hunting
        self.settings = engine.settings
        self.book = engine.book
        self.fresh = iter(owners)
        self.continuing: list[Candidate] = []
        self.under: list[Candidate | None] = []  # one for each row of the slots
        self.advance: Advance = self._advance
        if engine.look_every > 1:
            on_cuda = engine.network.device.type == "cuda"
            capture = capture_graph if on_cuda else repeat
            self.advance = Captured(self._advance, engine.look_every, capture)
        self.total = len(owners)
        self.decided = 0
        self.note = note
        self.judge = Judge(
            engine.network,
            engine.book,
            engine.goals,
            self.settings.radii,
            self.settings.norm,
            self.settings.targeted,
            self.settings.search == "bracket",
            engine.keep,
        )

    def run(self) -> list[int]:
        """Keep the slots full until no search asks for another try.

        Returns the owners of finds that the engine's network refuted.
        """
        entering = self._candidates(self.engine.slots)
        self.under = [*entering]
        slots = self._enter(entering) if entering else None
        while slots is not None:
            self.advance(slots)
            self.hunting.check()
            leaving = self._leaving(slots)
            if leaving:
                rows = torch.tensor(leaving, device=slots.step.device)
                self._leave(table.take(slots, rows), leaving)
                slots = self._refill(slots, rows)
                self.engine.progress.update(self.decided, self.total, self.note)
        self.judge.settle()
        return self.judge.refuted

    def _candidates(self, most: int) -> list[Candidate]:
        """Return tries to begin: the next ones of examples under attack, then fresh examples."""
        chosen = [self.continuing.pop() for _ in range(min(most, len(self.continuing)))]
        begun: list[tuple[int, Search, Any]] = []
        while len(chosen) + len(begun) < most and (owner := next(self.fresh, None)) is not None:
            search = self.engine.search(self.attack, self.member.restarts, owner)
            attempt = search.next()
            if attempt is None:
                self.decided += 1
            else:
                begun.append((owner, search, attempt))
        if begun:
            images = self.engine.images.read(torch.tensor([owner for owner, _, _ in begun]))
            images = images.to(self.engine.network.device)
            chosen += [Candidate(*one, image) for one, image in zip(begun, images, strict=True)]
        return chosen

    def _enter(self, candidates: Sequence[Candidate]) -> Slots:
        """Put tries into new slots, and let the attack begin there."""
        engine, settings = self.engine, self.settings
        slots = open_slots(
            candidates,
            self.attack.steps,
            settings.norm,
            settings.radii,
            engine.goals,
            engine.examples,
            [self._allowance(one) for one in candidates],
        )
        slots.state = self.attack.start(self._problem(slots))
        return slots

    def _allowance(self, candidate: Candidate) -> int:
        """Queries left: of the whole curve's budget, or of this point's when each is on its own."""
        if self.settings.query_budget is None:
            return UNLIMITED
        spent = self.book.queries[candidate.owner]
        if self.settings.search == "exhaustive":
            spent = spent[candidate.attempt.point]
        return self.settings.query_budget - int(spent.sum())

    def _problem(self, slots: Slots, going: Tensor | None = None) -> Problem:
        ledger, targeted = slots.ledger, self.settings.targeted
        return Problem(
            x=ledger.ball.x,
            y=ledger.y,
            targeted=targeted,
            ball=ledger.ball,
            victim=GuardedVictim(
                self.engine.network,
                ledger,
                self.attack.access,
                targeted=targeted,
                fast=self.hunting,
                limited=self.settings.query_budget is not None,
                going=going,
            ),
            draws=Draws(self.settings.seed, slots.example, slots.restart, slots.step),
            step=slots.step,
            start_points=slots.start_points,
            warm=slots.warm,
        )

    def _advance(self, slots: Slots) -> None:
        """One step of every row that is not done."""
        if self.engine.look_every == 1:  # then no row is done
            slots.state = self.attack.step(self._problem(slots), slots.state)
            slots.step = slots.step + 1
        else:
            going = ~self._done(slots)
            state = self.attack.step(self._problem(slots, going), slots.state)
            slots.state = table.choose(going, state, slots.state)
            slots.step = slots.step + going

    def _done(self, slots: Slots) -> Tensor:
        """(B,) bool: rows that take no further step."""
        done = slots.over | slots.ledger.exhausted
        return done | slots.ledger.broken if self.settings.early_leaving else done

    def _leaving(self, slots: Slots) -> list[int]:
        """Rows that are done, their last iterates judged at the price of a query."""
        ledger = slots.ledger
        judged = table.where(slots.over & ~ledger.broken & ~ledger.exhausted)
        if len(judged) and not getattr(self.attack, "asks_iterates", False):
            self._problem(slots).victim.labels(slots.iterates[judged], judged)
        done = table.where(self._done(slots)).tolist()
        return [row for row in done if self.under[row] is not None]

    def _leave(self, gone: Slots, rows: Sequence[int]) -> None:
        """Book what the rows that leave have shown, and queue the tries that they ask for next."""
        ledger, book = gone.ledger, self.book
        last, nearest = gone.iterates, ledger.nearest
        if not last[~ledger.exhausted].isfinite().all():
            raise CellError("the attack's x_adv is not finite")
        columns = ledger.distance, ledger.exhausted, ledger.forward, ledger.backward, ledger.queries
        for place, (row, distance, spent, forward, backward, queries) in enumerate(
            zip(rows, *(column.tolist() for column in columns), strict=True)
        ):
            one = self.under[row]
            assert one is not None
            book.forward[one.owner] += forward
            book.backward[one.owner] += backward
            book.queries[one.owner, one.attempt.point] += queries
            hit = nearest[place].clone() if distance < float("inf") else None
            one.search.report(last[place].clone(), hit, distance, spent=spent)
            attempt = one.search.next()
            if attempt is not None:
                self.continuing.append(Candidate(one.owner, one.search, attempt, one.clean))
            else:
                self._finish(one, spent=spent)

    def _finish(self, one: Candidate, *, spent: bool) -> None:
        """Book a search that has ended; its finds are only claims yet."""
        self.decided += 1
        self.book.cut_short[one.owner] |= spent and not one.search.decided
        self.book.attacked[one.owner, list(one.search.attacked)] = True
        for point, x_adv in one.search.images.items():
            if x_adv.numel():
                self.judge.hear(Claim(one.owner, point, one.clean, x_adv))

    def _refill(self, slots: Slots, free: Tensor) -> Slots | None:
        """Give free rows to tries that wait; without enough of them the batch shrinks."""
        entering = self._candidates(len(free))
        if entering:
            slots.refill(free[: len(entering)], self._enter(entering))
        for row, candidate in zip_longest(free.tolist(), entering):
            self.under[row] = candidate
        if len(entering) == len(free):
            return slots
        kept = [row for row, one in enumerate(self.under) if one is not None]
        if not kept:
            return None
        if self.engine.look_every > 1:
            slots.rest(free[len(entering) :])
            return slots
        self.under = [self.under[row] for row in kept]
        return table.take(slots, torch.tensor(kept, device=free.device))
