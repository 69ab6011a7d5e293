"""The engine: a cascade of attacks over examples, on whole curves of epsilons.

What is held in memory is the batch of the attack at hand and a few bytes for each example.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..api.attack import WholeAttack, declared
from ..victim.model import Network
from .config import AttackStage, called, isolated, nearest
from .diagnostics.missing_gradients import Stage, Unanswered
from .epsilon_search import BoundarySearch, Bracket, Exhaustive, MinimumNormSearch, Order, Search
from .loop import AttackInputs, AttackLoop, in_steps
from .outcomes import Outcomes
from .verifier import Keep, Verifier

_PROBES = 0.65  # of an attack's steps: as many as a boundary search may take


class CascadeRunner:
    """Runs a cascade of attacks over examples, none of which is misclassified when clean.

    fast: a copy of the field's network that gradients may come from; not under a query budget.
    keep: told of each adversarial example that holds: its position, its grid point, (C, H, W).
    """

    def __init__(
        self, inputs: AttackInputs, fast: Network | None = None, keep: Keep | None = None
    ) -> None:
        self.inputs = inputs
        self.fast = fast if inputs.settings.query_budget is None else None
        self.keep = keep
        self._isolated = False
        self._stage = Stage()
        self.outcomes = Outcomes(
            len(inputs.images), len(inputs.settings.grid), rejecting=inputs.network.rejects
        )

    def run(self, stages: Sequence[AttackStage]) -> Outcomes:
        """Run the attacks one after another, each on what the ones before it left.

        What is found on the fast network's gradients and not reproduced by the true one is searched
        for again without it; so is what these gradients, not being finite, did not break.

        Raises: CellError when the model or the attack misbehaves, or there was no finite gradient
        for an example that is not broken.
        """
        unanswered = Unanswered()
        self._isolated = isolated(stages, self.inputs.settings)
        for number, stage in enumerate(stages):
            name = called(stage.attack)
            note = f"attack {number + 1} of {len(stages)}" if len(stages) > 1 else ""
            everyone: Sequence[int] = range(len(self.inputs.images))
            if self.fast is not None and not nearest(stage.attack):
                not_reproduced = self._run_stage(number, stage, self.fast, everyone, note)
                lost = self._stage.lost(self.outcomes.broken)
                everyone = [*{**dict.fromkeys(not_reproduced), **lost}]
                unanswered.close_stage(self._stage, name, self.outcomes.broken, but=everyone)
            not_reproduced = self._run_stage(number, stage, self.inputs.network, everyone, note)
            unanswered.close_stage(self._stage, name, self.outcomes.broken)
            self.outcomes.not_reproduced[not_reproduced] = True
        unanswered.check(self.outcomes.broken)
        return self.outcomes

    def _run_stage(
        self,
        number: int,
        stage: AttackStage,
        gradient_model: Network,
        owners: Sequence[int],
        note: str,
    ) -> list[int]:
        """Run one attack; return those whose adversarial examples were not reproduced."""
        inputs, settings = self.inputs, self.inputs.settings
        if isinstance(stage.attack, WholeAttack):  # of a single step, which is not to be repeated
            inputs = replace(inputs, check_every=1)
        verifier = Verifier(
            inputs.network,
            self.outcomes,
            inputs.goals,
            inputs.examples,
            settings.radii,
            settings.norm,
            settings.targeted,
            covers=self._infers(stage.attack),
            stage=number,
            keep=self.keep,
            detector_unaware=settings.detector_unaware,
        )
        attack = in_steps(stage.attack)
        restarts = stage.restarts * declared(attack, "attempts_per_restart", 1)
        begin = partial(self._search, stage.attack, restarts, number == 0)
        loop = AttackLoop(
            inputs, gradient_model, attack, begin, owners, self.outcomes, verifier, note
        )
        self._stage = loop.stage
        loop.run()
        return verifier.not_reproduced

    def _search(self, attack: Any, restarts: int, first: bool, owner: int) -> Search:
        """Begin an example's way through the grid with one attack. first: of the cascade."""
        settings, radii = self.inputs.settings, self.inputs.settings.radii
        steps = in_steps(attack).steps
        broken = self.outcomes.broken[owner].nonzero()[0].tolist()
        resisted = None if first else len(radii)  # then the largest point is where to begin
        start = radii, restarts, min(broken, default=resisted), float(self.outcomes.distance[owner])
        if nearest(attack):
            return MinimumNormSearch(*start)
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
        boundary_search = declared(attack, "boundary_search", True)
        if steps == 1 or not boundary_search:
            return Bracket(
                *start, order="bisect" if start[2] is None else "descend", warm=boundary_search
            )
        return BoundarySearch(*start, probe_steps=math.ceil(_PROBES * steps))

    def _infers(self, attack: Any) -> bool:
        """Whether what breaks one epsilon is taken to break all above it."""
        return nearest(attack) or (self.inputs.settings.search == "bracket" and not self._isolated)
