"""Examples that an attack did not break, and for which it had no finite gradient to follow.

To count them as robust would take a number that is not there for a failed attack.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...api.errors import CellError
from ...victim.counters import MODEL


@dataclass
class Stage:
    """What one attack met on its way, by the examples' positions.

    faults: example -> point of the grid -> whose fault it was that a gradient was not finite, in a
    full-budget attempt there (bench/victim/counters.py). worked: examples that had such an attempt,
    with queries left at its end.
    """

    faults: dict[int, dict[int, int]] = field(default_factory=dict)
    worked: set[int] = field(default_factory=set)

    def note(self, example: int, point: int, fault: int, *, spent: bool) -> None:
        """Take in how a full-budget attempt ended."""
        if not spent:
            self.worked.add(example)
        if fault:
            points = self.faults.setdefault(example, {})
            points[point] = max(fault, points.get(point, 0))

    def lost(self, broken: NDArray[np.bool_]) -> dict[int, int]:
        """Example -> fault, of those where a point that had one is not broken, (N, E) bool."""
        left = {
            example: [fault for point, fault in points.items() if not broken[example, point]]
            for example, points in self.faults.items()
        }
        return {example: max(faults) for example, faults in left.items() if faults}


@dataclass
class Unanswered:
    """Examples that are still without an answer, over the stages of a cascade."""

    _open: dict[int, tuple[int, str]] = field(default_factory=dict)  # example -> fault, attack

    def close_stage(
        self, stage: Stage, attack: str, broken: NDArray[np.bool_], but: Collection[int] = ()
    ) -> None:
        """Take in a stage: what it worked on is answered, what it was lost on is not.

        but: examples that are to be attacked again.
        """
        lost = stage.lost(broken)
        for example in stage.worked - lost.keys() - set(but):
            self._open.pop(example, None)
        for example in lost.keys() - set(but):
            self._open[example] = lost[example], attack

    def check(self, broken: NDArray[np.bool_]) -> None:
        """Look whether any example was left without an answer. broken: (N, E) bool.

        Raises: CellError, which says of how many, by which attack, and whose fault it is.
        """
        left = [one for example, one in self._open.items() if not broken[example].all()]
        if not left:
            return
        attacks = ", ".join(sorted({attack for _, attack in left}))
        model = any(fault == MODEL for fault, _ in left)
        what = "the model's gradient" if model else "the gradient of the attack's loss"
        raise CellError(
            f"{what} is not finite for {len(left)} of {len(broken)} examples that {attacks} "
            "could not break: they are not shown to be robust"
        )
