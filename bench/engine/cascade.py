"""The engine: a cascade of attacks over examples, on whole curves of epsilons.

What is held in memory is the slots of the attack at hand and a few bytes for each example.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..api.attack import WholeAttack
from ..victim.model import Network
from .config import Member, called, isolated, nearest
from .diagnostics.missing_gradients import Stage, Unanswered
from .epsilon_search import Bracket, Exhaustive, Narrowing, Nearest, Order, Search
from .loop import Field, Pursuit, in_steps
from .outcomes import Book
from .verifier import Judge, Keep

_WALK = 0.65  # of an attack's steps: as many as a walk may take


class Engine:
    """Runs a cascade of attacks over examples, none of which is misclassified when clean.

    fast: a copy of the field's network that gradients may come from; not under a query budget.
    keep: told of each adversarial example that holds: its position, its grid point, (C, H, W).
    """

    def __init__(self, field: Field, fast: Network | None = None, keep: Keep | None = None) -> None:
        self.field = field
        self.fast = fast if field.settings.query_budget is None else None
        self.keep = keep
        self._isolated = False
        self._stage = Stage()
        self.book = Book.open(
            len(field.images), len(field.settings.grid), rejecting=field.network.rejects
        )

    def run(self, members: Sequence[Member]) -> Book:
        """Run the attacks one after another, each on what the ones before it left.

        What is found on the fast network's gradients and refuted by the true one is searched for
        again without it; so is what these gradients, not being finite, did not break.

        Raises: CellError when the model or the attack misbehaves, or there was no finite gradient
        for an example that is not broken.
        """
        unanswered = Unanswered()
        self._isolated = isolated(members, self.field.settings)
        for number, member in enumerate(members):
            name = called(member.attack)
            note = f"attack {number + 1} of {len(members)}" if len(members) > 1 else ""
            everyone: Sequence[int] = range(len(self.field.images))
            if self.fast is not None and not nearest(member.attack):
                refuted = self._pursue(number, member, self.fast, everyone, note)
                lost = self._stage.lost(self.book.broken)
                everyone = [*{**dict.fromkeys(refuted), **lost}]
                unanswered.close_stage(self._stage, name, self.book.broken, but=everyone)
            refuted = self._pursue(number, member, self.field.network, everyone, note)
            unanswered.close_stage(self._stage, name, self.book.broken)
            self.book.refuted[refuted] = True
        unanswered.check(self.book.broken)
        return self.book

    def _pursue(
        self, number: int, member: Member, hunting: Network, owners: Sequence[int], note: str
    ) -> list[int]:
        """Run one attack; return those whose adversarial examples the true network refuted."""
        field, settings = self.field, self.field.settings
        if isinstance(member.attack, WholeAttack):  # of a single step, which is not to be repeated
            field = replace(field, look_every=1)
        judge = Judge(
            field.network,
            self.book,
            field.goals,
            field.examples,
            settings.radii,
            settings.norm,
            settings.targeted,
            covers=self._infers(member.attack),
            member=number,
            keep=self.keep,
            oblivious=settings.oblivious,
        )
        attack = in_steps(member.attack)
        restarts = member.restarts * getattr(attack, "tries", 1)
        begin = partial(self._search, member.attack, restarts, number == 0)
        pursuit = Pursuit(field, hunting, attack, begin, owners, self.book, judge, note)
        self._stage = pursuit.stage
        pursuit.run()
        return judge.refuted

    def _search(self, attack: Any, restarts: int, first: bool, owner: int) -> Search:
        """Begin an example's way through the grid with one attack. first: of the cascade."""
        settings, radii = self.field.settings, self.field.settings.radii
        steps = in_steps(attack).steps
        broken = self.book.broken[owner].nonzero()[0].tolist()
        resisted = None if first else len(radii)  # then the largest point is where to begin
        start = radii, restarts, min(broken, default=resisted), float(self.book.distance[owner])
        if nearest(attack):
            return Nearest(*start)
        budget = settings.query_budget is not None  # it may not last for more than the largest
        if not self._infers(attack):
            shared = budget and settings.search == "bracket"
            return Exhaustive(radii, restarts, frozenset(broken), shared)
        monotone = getattr(attack, "monotone", True)
        if budget:
            order: Order = "descend" if monotone else "sweep"
            return Bracket(*start, order=order, warm=steps > 1)
        if not monotone:
            return Bracket(*start, order="ascend")
        walks = getattr(attack, "walks", True)
        if steps == 1 or not walks:
            return Bracket(*start, order="bisect" if start[2] is None else "descend", warm=walks)
        return Narrowing(*start, walk=math.ceil(_WALK * steps))

    def _infers(self, attack: Any) -> bool:
        """Whether what breaks one epsilon is taken to break all above it."""
        return nearest(attack) or (self.field.settings.search == "bracket" and not self._isolated)
