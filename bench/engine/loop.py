"""The attack loop: one attack on the examples that are left, in a batch that is kept full.

Examples are independent. One that is broken, out of steps or out of queries leaves its slot to its
next attempt, or to the next example. Attacks know nothing of it: they see a Problem and advance
their state.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..api.attack import Access, Problem, WholeAttack, declared
from ..api.data import Images
from ..api.errors import CellError
from ..api.progress import Progress
from ..api.rng import Draws
from ..victim import rows as table
from ..victim.counters import UNLIMITED, AttackCounters
from ..victim.decision import decision_of
from ..victim.model import SMALLEST_BATCH, Network
from ..victim.oracle import AttackedModel, Oracle
from ..victim.traits import adapts
from .batch import ActiveBatch, PendingAttempt, open_batch
from .config import CellConfig, nearest
from .cuda_graphs import Captured, capture_graph, repeat
from .diagnostics.missing_gradients import Stage
from .diagnostics.unchanged_inputs import refuse_change, watched
from .epsilon_search import Search
from .outcomes import Outcomes
from .verifier import Candidate, Verifier

_NOT_AN_IMAGE = "the attack's x_adv is not finite"
_LONG = 4.0  # single steps are as long as those of an attack that takes so many


@dataclass(frozen=True)
class AttackInputs:
    """What is pursued, and how.

    network: gives the predictions. images: N of them. goals: (N,) int64, the labels to leave, or
    the classes to reach. examples: (N,) int64, the numbers that their randomness depends on.
    batch_size: how many examples are under attack at once. check_every: steps between two looks at
    who is done; above 1 the batch keeps its shape, and rows that are done idle until the next look.
    """

    network: Network
    images: Images
    goals: Tensor
    examples: Tensor
    settings: CellConfig
    batch_size: int
    progress: Progress
    check_every: int = 1


@dataclass
class _Whole:
    x_adv: Tensor


@dataclass(frozen=True)
class _OneStep:
    """A whole attack as an attack of a single step."""

    attack: WholeAttack
    access: Access
    monotone: bool
    minimum_norm: bool
    steps: int = 1

    def start(self, problem: Problem) -> _Whole:
        return _Whole(problem.x)

    def step(self, problem: Problem, state: _Whole) -> _Whole:
        return _Whole(self.attack.run(problem))


def in_steps(attack: Any) -> Any:
    """Return the attack, as one of a single step when it comes in one piece."""
    if not isinstance(attack, WholeAttack):
        return attack
    return _OneStep(attack, attack.access, getattr(attack, "monotone", True), nearest(attack))


class AttackLoop:
    """One attack, in steps, on some examples.

    gradient_model: the network that gradients come from: the inputs', or a fast copy of it. begin:
    starts the search of an example, given by its position among the N. owners: which. outcomes,
    verifier: where what is shown goes. note: for the progress.
    """

    def __init__(
        self,
        inputs: AttackInputs,
        gradient_model: Network,
        attack: Any,
        begin: Callable[[int], Search],
        owners: Sequence[int],
        outcomes: Outcomes,
        verifier: Verifier,
        note: str,
    ) -> None:
        self.inputs = inputs
        self.gradient_model = gradient_model
        self.settings = inputs.settings
        self.attack = attack
        random = "stochastic" in inputs.network.traits.needs - adapts(attack)
        self.rule = decision_of(
            inputs.network,
            targeted=self.settings.targeted,
            detector_unaware=self.settings.detector_unaware,
        )
        self.model = AttackedModel(
            self.rule,
            attack.access,
            fast=gradient_model,
            samples=self.settings.adaptation.samples if random else 1,
            limited=self.settings.query_budget is not None,
        )
        self.begin = begin
        self.fresh = iter(owners)
        self.outcomes = outcomes
        self.verifier = verifier
        self.note = note
        self.continuing: deque[PendingAttempt] = deque()
        self.active: list[PendingAttempt | None] = []  # one for each row of the batch
        self.unchecked: list[
            tuple[ActiveBatch, Sequence[PendingAttempt]]
        ] = []  # whose last iterates are
        self.advance: Callable[[ActiveBatch, int], None] = self._advance_all
        if inputs.check_every > 1:
            on_cuda = inputs.network.device.type == "cuda"
            self.advance = Captured(self._advance_some, capture_graph if on_cuda else repeat)
        self.stage = Stage()
        minimum_norm, asks_iterates = nearest(attack), getattr(attack, "asks_iterates", False)
        # Whether x_adv is where the attack is: not the best that it has found, nor an answer.
        self.follows = not ((minimum_norm and asks_iterates) or isinstance(attack, _OneStep))
        # Whether it is where an attempt ends that the model judges, not what was found on the way:
        # who overlooks the detector cannot know which of its adversarial examples would pass.
        self.hands_over_ends = self.rule.overlooks_rejection and not minimum_norm
        self.asks_iterates = asks_iterates
        # Whether the verifier is to see what the detector makes of where full attempts ended.
        self.scores_ends = inputs.network.rejects and not self.rule.overlooks_rejection
        # Whether an attempt ends when it has won: not where it counts how sure the detector is.
        ranked = inputs.network.rejects and self.settings.search == "exhaustive"
        self.early_leaving = self.settings.early_leaving and not ranked
        self.total = len(owners)
        self.decided = 0

    def run(self) -> None:
        """Keep the batch full until no search asks for another attempt.

        Raises: CellError when the model or the attack misbehaves.
        """
        entering = self._next_attempts(self.inputs.batch_size)
        self.active = [*entering]
        batch = self._enter(entering) if entering else None
        while batch is not None:
            self.advance(batch, 1 if self._single_stepping else self.inputs.check_every)
            self._check(batch)
            done = table.where(self._done(batch)).tolist()
            finished = [row for row in done if self.active[row] is not None]
            if finished:
                rows = torch.tensor(finished, device=batch.step.device)
                pending = [one for row in finished if (one := self.active[row]) is not None]
                self._release(table.take(batch, rows), pending)
                batch = self._refill(batch, rows)
                self.inputs.progress.update(self.decided, self.total, self.note)
        self.verifier.flush()

    def _check(self, batch: ActiveBatch) -> None:
        """See what a GPU has to say of the logits. Raises: CellError, blaming the attack if due."""
        try:
            self.gradient_model.check()
        except CellError:
            if batch.iterates.isfinite().all():
                raise
            raise CellError(_NOT_AN_IMAGE) from None

    def _next_attempts(self, most: int) -> list[PendingAttempt]:
        """Return attempts to begin: the next ones of examples under attack, then fresh examples."""
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
            images = self.inputs.images.read(torch.tensor([owner for owner, _, _ in begun]))
            images = images.to(self.inputs.network.device)
            chosen += [
                PendingAttempt(*one, image) for one, image in zip(begun, images, strict=True)
            ]
        if len(chosen) < most and self.unchecked:
            self._check_iterates()
            chosen += self._continue(most - len(chosen))
        return chosen

    def _continue(self, most: int) -> list[PendingAttempt]:
        return [self.continuing.popleft() for _ in range(min(most, len(self.continuing)))]

    def _enter(self, pending: Sequence[PendingAttempt]) -> ActiveBatch:
        """Put attempts into a new batch, and let the attack begin there."""
        inputs, settings = self.inputs, self.settings
        batch = open_batch(
            pending,
            self.attack.steps,
            declared(self.attack, "step_multiplier", self.attack.steps / _LONG),
            settings.norm,
            settings.radii,
            inputs.goals,
            inputs.examples,
            [self._allowance(one) for one in pending],
        )
        batch.state = watched(self.attack.start, self._problem(batch))
        return batch

    def _allowance(self, pending: PendingAttempt) -> int:
        """Queries left: of the whole curve's budget, or of this point's when each is on its own."""
        if self.settings.query_budget is None:
            return UNLIMITED
        spent = self.outcomes.queries[pending.owner]
        if self.settings.search == "exhaustive":
            spent = spent[pending.attempt.point]
        return self.settings.query_budget - int(spent.sum())

    def _problem(self, batch: ActiveBatch, going: Tensor | None = None) -> Problem:
        return Problem(
            x=batch.counters.ball.x,
            y=batch.counters.y,
            targeted=self.settings.targeted,
            ball=batch.counters.ball,
            victim=self._oracle(batch, going),
            draws=self._draws(batch),
            step=batch.step,
            start_points=batch.start_points,
            warm=batch.warm,
        )

    def _oracle(self, batch: ActiveBatch, going: Tensor | None = None) -> Oracle:
        # A captured step is for all attempts, whether they are single steps or not.
        tracking = self._single_stepping or self.inputs.check_every > 1
        draws = self._draws(batch)
        return Oracle(self.model, batch.counters, draws, going, track_margin=tracking)

    def _draws(self, batch: ActiveBatch) -> Draws:
        return Draws(self.settings.seed, batch.example, batch.restart, batch.step)

    @property
    def _single_stepping(self) -> bool:
        """Whether an attempt under way is a single step, whose margin is of interest."""
        return any(one is not None and one.attempt.single_step for one in self.active)

    def _advance_all(self, batch: ActiveBatch, times: int) -> None:
        """Take one step of every row: all are under way when the host looks after each step."""
        assert times == 1
        batch.state = watched(self.attack.step, self._problem(batch), batch.state)
        batch.step = batch.step + 1
        batch.check()

    def _advance_some(self, batch: ActiveBatch) -> None:
        """Take one step of every row that is not done."""
        going = ~self._done(batch)
        state = watched(self.attack.step, self._problem(batch, going), batch.state)
        batch.state = table.choose(going, state, batch.state)
        batch.step = batch.step + going
        batch.check()

    def _done(self, batch: ActiveBatch) -> Tensor:
        """(B,) bool: rows that take no further step."""
        done = batch.over | batch.counters.exhausted
        return done | batch.won if self.early_leaving else done

    def _release(self, gone: ActiveBatch, pending: Sequence[PendingAttempt]) -> None:
        """Let rows leave: at once when they are decided, else when their iterates are judged."""
        counters = gone.counters
        open_ended = gone.over & ~gone.single_step & ~gone.won & ~counters.exhausted
        if self.hands_over_ends:
            open_ended = ~counters.exhausted
        elif self.asks_iterates:
            open_ended = torch.zeros_like(open_ended)
        for wanted, act in ((False, self._record), (True, self._await_check)):
            rows = table.where(open_ended == wanted)
            if len(rows):
                act(table.take(gone, rows), [pending[row] for row in rows.tolist()])

    def _await_check(self, gone: ActiveBatch, pending: Sequence[PendingAttempt]) -> None:
        self.unchecked.append((gone, pending))
        if sum(len(some) for _, some in self.unchecked) >= SMALLEST_BATCH:
            self._check_iterates()

    def _check_iterates(self) -> None:
        """Judge last iterates at the price of a query, when there are enough to fill a pass."""
        parts, self.unchecked = self.unchecked, []
        gone = table.join([batch for batch, _ in parts])
        found = gone.counters.distance.clone(), gone.counters.nearest.clone()
        if self.hands_over_ends:
            gone.counters.distance.fill_(torch.inf)
        self._oracle(gone).check_points(gone.iterates)
        if self.hands_over_ends:
            gone.counters.fall_back(*found)
        self._record(gone, [one for _, pending in parts for one in pending])

    def _record(self, gone: ActiveBatch, pending: Sequence[PendingAttempt]) -> None:
        """Record what rows that leave have shown, and queue the attempts that they ask for next."""
        counters, outcomes = gone.counters, self.outcomes
        last, points = gone.iterates, counters.nearest
        if not last[~counters.exhausted].isfinite().all():
            raise CellError(_NOT_AN_IMAGE)
        self._compare(counters, pending)
        self._add_counts(counters, pending)
        still = (last == counters.ball.x).flatten(1).all(dim=1).tolist()
        columns = (counters.distance, counters.margin, counters.exhausted, counters.fault)
        for place, (one, distance, margin, spent, fault) in enumerate(
            zip(pending, *(column.tolist() for column in columns), strict=True)
        ):
            full, point = not one.attempt.single_step, one.attempt.point
            if full:  # who looks for the nearest adversarial point states that there is no nearer
                stated = 0 if nearest(self.attack) else point
                self.stage.note(one.owner, stated, fault, spent=spent)
            hit = points[place].clone() if distance < float("inf") else None
            if self.follows and full and not spent:
                ended = outcomes.stayed if still[place] and hit is None else outcomes.moved
                ended[one.owner] = True
            if self.scores_ends and full and not spent:
                end = Candidate(one.owner, point, one.clean, last[place].clone(), found=False)
                self.verifier.add(end)
            one.search.report(last[place].clone(), hit, distance, spent=spent, margin=margin)
            attempt = one.search.next()
            if attempt is not None:
                self.continuing.append(PendingAttempt(one.owner, one.search, attempt, one.clean))
            else:
                self._finish(one, spent=spent)

    def _add_counts(self, counters: AttackCounters, pending: Sequence[PendingAttempt]) -> None:
        """Add what attempts have counted to what is known of their examples."""
        self.outcomes.add_counts(
            {name: one.numpy(force=True) for name, one in counters.counts.items()},
            np.array([one.owner for one in pending]),
            np.array([one.attempt.point for one in pending]),
            alone=not self.verifier.covers,
        )

    def _compare(self, counters: AttackCounters, pending: Sequence[PendingAttempt]) -> None:
        """Compare what the attack was given with what it still is.

        Raises: CellError where the attack has written into it.
        """
        owners = torch.tensor([one.owner for one in pending])
        radii = [self.settings.radii[one.attempt.point] for one in pending]
        refuse_change(
            {
                "problem.x": (counters.ball.x, torch.stack([one.clean for one in pending])),
                "problem.y": (counters.y, self.inputs.goals[owners]),
                "problem.epsilon": (
                    counters.ball.epsilon,
                    torch.tensor(radii, dtype=torch.float64),
                ),
            }
        )

    def _finish(self, one: PendingAttempt, *, spent: bool) -> None:
        """Record a search that has ended; its adversarial examples are only candidates yet."""
        self.decided += 1
        self.outcomes.cut_short[one.owner] |= spent and not one.search.decided
        self.outcomes.attacked[one.owner, list(one.search.attacked)] = True
        for point, x_adv in one.search.images.items():
            self.verifier.add(Candidate(one.owner, point, one.clean, x_adv))

    def _refill(self, batch: ActiveBatch, free: Tensor) -> ActiveBatch | None:
        """Give free rows to attempts that wait; without enough of them the batch shrinks."""
        entering = self._next_attempts(len(free))
        if entering:
            batch.refill(free[: len(entering)], self._enter(entering))
        for row, pending in zip_longest(free.tolist(), entering):
            self.active[row] = pending
        if len(entering) == len(free):
            return batch
        kept = [row for row, one in enumerate(self.active) if one is not None]
        if not kept:
            return None
        if self.inputs.check_every > 1:
            batch.rest(free[len(entering) :])
            return batch
        self.active = [self.active[row] for row in kept]
        return table.take(batch, torch.tensor(kept, device=free.device))
