"""The pursuit: one attack on the examples that are left, in slots that are kept full.

Examples are independent. One that is broken, out of steps or out of queries leaves its slot to its
next try, or to the next example. Attacks know nothing of it: they see a Problem and advance their
state.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from ..api.attack import Access, Problem, WholeAttack
from ..api.data import Images
from ..api.errors import CellError
from ..api.progress import Progress
from ..api.rng import Draws
from ..victim import rows as table
from ..victim.counters import UNLIMITED, Ledger
from ..victim.model import SMALLEST_BATCH, Network
from ..victim.oracle import GuardedVictim
from ..victim.traits import adapts
from .batch import Candidate, Slots, open_slots
from .config import Settings
from .cuda_graphs import Captured, capture_graph, repeat
from .diagnostics.missing_gradients import Stage
from .diagnostics.unchanged_inputs import refuse_change, watched
from .epsilon_search import Search, Try
from .outcomes import Book
from .verifier import Claim, Judge

_NOT_AN_IMAGE = "the attack's x_adv is not finite"
_LONG = 4.0  # steps of a walk are as long as those of an attack that takes so many


@dataclass(frozen=True)
class Field:
    """What is pursued, and how.

    network: gives the verdicts. images: N of them. goals: (N,) int64, the labels to leave, or the
    classes to reach. examples: (N,) int64, the numbers that their randomness hangs on. slots: how
    many examples are under attack at once. look_every: steps between two looks at who is done;
    above 1 the batch keeps its shape, and rows that are done idle until the next look.
    """

    network: Network
    images: Images
    goals: Tensor
    examples: Tensor
    settings: Settings
    slots: int
    progress: Progress
    look_every: int = 1


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

    @property
    def minimum_norm(self) -> bool:
        return bool(getattr(self.attack, "minimum_norm", False))

    def start(self, problem: Problem) -> _Whole:
        return _Whole(problem.x)

    def step(self, problem: Problem, state: _Whole) -> _Whole:
        return _Whole(self.attack.run(problem))


def in_steps(attack: Any) -> Any:
    """Return the attack, as one of a single step when it comes in one piece."""
    return _OneStep(attack) if isinstance(attack, WholeAttack) else attack


class Pursuit:
    """One attack, in steps, on some examples.

    hunting: the network that gradients come from: the field's, or a fast copy of it. begin: starts
    the search of an example, given by its position among the N. owners: which. book, judge: where
    what is shown goes. note: for the progress.
    """

    def __init__(
        self,
        field: Field,
        hunting: Network,
        attack: Any,
        begin: Callable[[int], Search],
        owners: Sequence[int],
        book: Book,
        judge: Judge,
        note: str,
    ) -> None:
        self.field = field
        self.hunting = hunting
        self.settings = field.settings
        self.attack = attack
        random = field.network.stochastic and "stochastic" not in adapts(attack)
        self.samples = field.settings.approach.samples if random else 1
        self.begin = begin
        self.fresh = iter(owners)
        self.book = book
        self.judge = judge
        self.note = note
        self.continuing: deque[Candidate] = deque()
        self.under: list[Candidate | None] = []  # one for each row of the slots
        self.unjudged: list[tuple[Slots, Sequence[Candidate]]] = []  # whose last iterates are
        self.advance: Callable[[Slots, int], None] = self._advance_all
        if field.look_every > 1:
            on_cuda = field.network.device.type == "cuda"
            self.advance = Captured(self._advance_some, capture_graph if on_cuda else repeat)
        self.stage = Stage()
        self.total = len(owners)
        self.decided = 0

    def run(self) -> None:
        """Keep the slots full until no search asks for another try.

        Raises: CellError when the model or the attack misbehaves.
        """
        entering = self._candidates(self.field.slots)
        self.under = [*entering]
        slots = self._enter(entering) if entering else None
        while slots is not None:
            self.advance(slots, 1 if self._walking else self.field.look_every)
            self._check(slots)
            leaving = self._leaving(slots)
            if leaving:
                rows = torch.tensor(leaving, device=slots.step.device)
                candidates = [one for row in leaving if (one := self.under[row]) is not None]
                self._part(table.take(slots, rows), candidates)
                slots = self._refill(slots, rows)
                self.field.progress.update(self.decided, self.total, self.note)
        self.judge.settle()

    def _check(self, slots: Slots) -> None:
        """See what a GPU has to say of the logits. Raises: CellError, blaming the attack if due."""
        try:
            self.hunting.check()
        except CellError:
            if slots.iterates.isfinite().all():
                raise
            raise CellError(_NOT_AN_IMAGE) from None

    def _candidates(self, most: int) -> list[Candidate]:
        """Return tries to begin: the next ones of examples under attack, then fresh examples."""
        chosen = self._continue(most)
        begun: list[tuple[int, Search, Any]] = []
        while len(chosen) + len(begun) < most and (owner := next(self.fresh, None)) is not None:
            search = self.begin(owner)
            attempt = search.next()
            if attempt is None:
                self.decided += 1
            else:
                begun.append((owner, search, attempt))
        if begun:
            images = self.field.images.read(torch.tensor([owner for owner, _, _ in begun]))
            images = images.to(self.field.network.device)
            chosen += [Candidate(*one, image) for one, image in zip(begun, images, strict=True)]
        if len(chosen) < most and self.unjudged:
            self._judge()
            chosen += self._continue(most - len(chosen))
        return chosen

    def _continue(self, most: int) -> list[Candidate]:
        return [self.continuing.popleft() for _ in range(min(most, len(self.continuing)))]

    def _enter(self, candidates: Sequence[Candidate]) -> Slots:
        """Put tries into new slots, and let the attack begin there."""
        field, settings = self.field, self.settings
        slots = open_slots(
            candidates,
            self.attack.steps,
            getattr(self.attack, "pace", self.attack.steps / _LONG),
            settings.norm,
            settings.radii,
            field.goals,
            field.examples,
            [self._allowance(one) for one in candidates],
        )
        slots.state = watched(self.attack.start, self._problem(slots))
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
        draws = Draws(self.settings.seed, slots.example, slots.restart, slots.step)
        return Problem(
            x=ledger.ball.x,
            y=ledger.y,
            targeted=targeted,
            ball=ledger.ball,
            victim=GuardedVictim(
                self.field.network,
                ledger,
                self.attack.access,
                targeted=targeted,
                fast=self.hunting,
                limited=self.settings.query_budget is not None,
                leading=self._walking or self.field.look_every > 1,  # a captured step is for all
                going=going,
                draws=draws,
                samples=self.samples,
                oblivious=self.settings.oblivious,
            ),
            draws=draws,
            step=slots.step,
            start_points=slots.start_points,
            warm=slots.warm,
        )

    @property
    def _walking(self) -> bool:
        """Whether a try under way is a single step, whose lead is of interest."""
        return any(one is not None and one.attempt.brief for one in self.under)

    def _advance_all(self, slots: Slots, times: int) -> None:
        """Take one step of every row: all are under way when the host looks after each step."""
        assert times == 1
        slots.state = watched(self.attack.step, self._problem(slots), slots.state)
        slots.step = slots.step + 1
        slots.check()

    def _advance_some(self, slots: Slots) -> None:
        """Take one step of every row that is not done."""
        going = ~self._done(slots)
        state = watched(self.attack.step, self._problem(slots, going), slots.state)
        slots.state = table.choose(going, state, slots.state)
        slots.step = slots.step + going
        slots.check()

    @property
    def _hands_over_ends(self) -> bool:
        """Whether it is where a try ends that the model judges, not what was found on the way.

        An attack that overlooks the detector cannot know which of its finds would pass.
        """
        overlooking = self.settings.oblivious and self.field.network.rejects
        return overlooking and not getattr(self.attack, "minimum_norm", False)

    @property
    def _follows(self) -> bool:
        """Whether x_adv is where the attack is: not the best that it has found, nor an answer."""
        keeps_best = all(
            getattr(self.attack, one, False) for one in ("minimum_norm", "asks_iterates")
        )
        return not (keeps_best or isinstance(self.attack, _OneStep))

    def _done(self, slots: Slots) -> Tensor:
        """(B,) bool: rows that take no further step."""
        done = slots.over | slots.ledger.exhausted
        return done | slots.won if self._early_leaving else done

    @property
    def _early_leaving(self) -> bool:
        """Whether a try ends when it has won: not where it counts how sure the detector is."""
        ranked = self.field.network.rejects and self.settings.search == "exhaustive"
        return self.settings.early_leaving and not ranked

    def _leaving(self, slots: Slots) -> list[int]:
        """Rows that are done."""
        done = table.where(self._done(slots)).tolist()
        return [row for row in done if self.under[row] is not None]

    def _part(self, gone: Slots, candidates: Sequence[Candidate]) -> None:
        """Let rows leave: at once when they are decided, else when their iterates are judged."""
        ledger = gone.ledger
        open_ended = gone.over & ~gone.brief & ~gone.won & ~ledger.exhausted
        if self._hands_over_ends:
            open_ended = ~ledger.exhausted
        elif getattr(self.attack, "asks_iterates", False):
            open_ended = torch.zeros_like(open_ended)
        for wanted, act in ((False, self._leave), (True, self._await_judgement)):
            rows = table.where(open_ended == wanted)
            if len(rows):
                act(table.take(gone, rows), [candidates[row] for row in rows.tolist()])

    def _await_judgement(self, gone: Slots, candidates: Sequence[Candidate]) -> None:
        self.unjudged.append((gone, candidates))
        if sum(len(some) for _, some in self.unjudged) >= SMALLEST_BATCH:
            self._judge()

    def _judge(self) -> None:
        """Judge last iterates at the price of a query, when there are enough to fill a pass."""
        parts, self.unjudged = self.unjudged, []
        gone = table.join([slots for slots, _ in parts])
        found = gone.ledger.distance.clone(), gone.ledger.nearest.clone()
        if self._hands_over_ends:
            gone.ledger.distance.fill_(torch.inf)
        victim = self._problem(gone).victim
        assert isinstance(victim, GuardedVictim)
        victim.judge(gone.iterates)
        if self._hands_over_ends:
            gone.ledger.fall_back(*found)
        self._leave(gone, [one for _, candidates in parts for one in candidates])

    def _leave(self, gone: Slots, candidates: Sequence[Candidate]) -> None:
        """Book what the rows that leave have shown, and queue the tries that they ask for next."""
        ledger, book = gone.ledger, self.book
        last, nearest = gone.iterates, ledger.nearest
        if not last[~ledger.exhausted].isfinite().all():
            raise CellError(_NOT_AN_IMAGE)
        self._compare(ledger, candidates)
        still = (last == ledger.ball.x).flatten(1).all(dim=1).tolist()
        columns = (ledger.distance, ledger.lead, ledger.exhausted, ledger.fault)
        counts = (ledger.forward, ledger.backward, ledger.queries)
        solved = ledger.solved.tolist()
        for place, (one, distance, lead, spent, fault, forward, backward, queries) in enumerate(
            zip(candidates, *(column.tolist() for column in columns + counts), strict=True)
        ):
            self._book_solved(one, solved[place])
            book.forward[one.owner] += forward
            book.backward[one.owner] += backward
            book.queries[one.owner, one.attempt.point] += queries
            if not one.attempt.brief:
                self.stage.note(one.owner, self._claimed(one.attempt), fault, spent=spent)
            hit = nearest[place].clone() if distance < float("inf") else None
            if self._follows and not (one.attempt.brief or spent):
                ended = book.stayed if still[place] and hit is None else book.moved
                ended[one.owner] = True
            if self.field.network.rejects and not (self.settings.oblivious or spent):
                self._weigh(one, last[place])
            one.search.report(last[place].clone(), hit, distance, spent=spent, lead=lead)
            attempt = one.search.next()
            if attempt is not None:
                self.continuing.append(Candidate(one.owner, one.search, attempt, one.clean))
            else:
                self._finish(one, spent=spent)

    def _compare(self, ledger: Ledger, candidates: Sequence[Candidate]) -> None:
        """Compare what the attack was given with what it still is.

        Raises: CellError where the attack has written into it.
        """
        owners = torch.tensor([one.owner for one in candidates])
        radii = [self.settings.radii[one.attempt.point] for one in candidates]
        refuse_change(
            {
                "problem.x": (ledger.ball.x, torch.stack([one.clean for one in candidates])),
                "problem.y": (ledger.y, self.field.goals[owners]),
                "problem.epsilon": (ledger.ball.epsilon, torch.tensor(radii, dtype=torch.float64)),
            }
        )

    def _claimed(self, attempt: Try) -> int:
        """The smallest point that counts as robust when this attempt fails there.

        An attack that looks for the nearest adversarial point claims that there is no nearer one.
        """
        return 0 if getattr(self.attack, "minimum_norm", False) else attempt.point

    def _weigh(self, one: Candidate, last: Tensor) -> None:
        """Let the judge see what the model's detector makes of where a whole try ended."""
        if not one.attempt.brief:
            end = Claim(one.owner, one.attempt.point, one.clean, last.clone(), found=False)
            self.judge.hear(end)

    def _book_solved(self, one: Candidate, solved: Sequence[int]) -> None:
        """Book how many queries of the example's budget had been asked when points fell."""
        book, point = self.book, one.attempt.point
        before = book.queries[one.owner]
        alone = not self.judge.covers  # every point is an experiment of its own
        asked = int(before[point] if alone else before.sum())
        for at, count in enumerate(solved):
            if count and not book.solved[one.owner, at] and (at == point or not alone):
                book.solved[one.owner, at] = asked + count

    def _finish(self, one: Candidate, *, spent: bool) -> None:
        """Book a search that has ended; its finds are only claims yet."""
        self.decided += 1
        self.book.cut_short[one.owner] |= spent and not one.search.decided
        self.book.attacked[one.owner, list(one.search.attacked)] = True
        for point, x_adv in one.search.images.items():
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
        if self.field.look_every > 1:
            slots.rest(free[len(entering) :])
            return slots
        self.under = [self.under[row] for row in kept]
        return table.take(slots, torch.tensor(kept, device=free.device))
