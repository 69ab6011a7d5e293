"""What has been shown of every example so far: a few bytes each, however many there are.

Examples are independent, and so is their randomness: parts of a cell, joined, are the cell, to the
bit, whoever computed them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..api.shared.outcome_columns import COUNTED, KEPT, RECORDS
from .config import CellConfig

if TYPE_CHECKING:
    from .case import Case


@dataclass(frozen=True)
class Part:
    """What a task showed of some examples that follow one another.

    values: columns by name, (n, ...), with a row for each example, or for each that was attacked;
    the task knows which. report: figures of an attack's preparation, the same in every part.
    """

    values: Mapping[str, NDArray[Any]]
    report: Mapping[str, float] = field(default_factory=dict)


def joined(parts: Sequence[Part]) -> Part:
    """Parts of one cell as a single one. parts: one at least, in the order of their examples."""
    names = parts[0].values
    values = {name: np.concatenate([one.values[name] for one in parts]) for name in names}
    return Part(values, parts[0].report)


class Outcomes:
    """A column for each entry of `outcome_columns.KEPT`, by its name.

    One row for each of `examples`; columns per epsilon are (N, E) over the points of the grid.
    rejecting: whether the model has a reject option; without one
    `candidate_rejection_margin` is (N, 0).
    """

    def __init__(self, examples: int, points: int, *, rejecting: bool = False) -> None:
        for one in KEPT:
            width = points if rejecting or one.name != "candidate_rejection_margin" else 0
            shape = (examples, width) if one.per_epsilon else (examples,)
            start = one.fill if one.start is None else one.start
            setattr(self, one.name, np.full(shape, start, one.dtype))

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Outcomes":
        """Outcomes whose columns are known: what `arrays` gave."""
        made = cls.__new__(cls)
        for one in KEPT:
            setattr(made, one.name, arrays[one.name])
        return made

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every column by its name."""
        return {one.name: getattr(self, one.name) for one in KEPT}

    def __getattr__(self, name: str) -> NDArray[Any]:
        raise AttributeError(f"there is no column {name!r}")

    @property
    def idle(self) -> int:
        """How many examples resisted, and no attempt on them ended away from the clean image."""
        return int((self.stayed & ~self.moved & ~self.broken.any(axis=1)).sum())

    def add_counts(
        self,
        counts: Mapping[str, NDArray[np.int64]],
        owners: NDArray[np.int64],
        points: NDArray[np.int64],
        *,
        alone: bool,
    ) -> None:
        """Add what attempts have counted, of different examples.

        counts: of each column in `COUNTED`, (n,), or (n, E) for "first". owners, points: (n,), the
        examples and the points of the grid. alone: whether each point is an experiment of its own,
        with its own queries.
        """
        before = self.queries[owners]
        asked = before[np.arange(len(owners)), points] if alone else before.sum(axis=1)
        for one in COUNTED:
            kept, new = getattr(self, one.name), counts[one.name]
            if one.count == "add":
                kept[owners] += new
            elif one.count == "add-at-epsilon":
                kept[owners, points] += new
            elif new.any():
                old = kept[owners]
                here = (new > 0) & (old == 0)
                if alone:
                    here &= np.arange(new.shape[1]) == points[:, None]
                kept[owners] = np.where(here, asked[:, None] + new, old)

    def spread(self, rows: NDArray[np.int64], count: int) -> dict[str, NDArray[Any]]:
        """The columns that are recorded, for all `count` examples; rows: (N,), of those here."""
        spread = {}
        for one in KEPT:
            values = getattr(self, one.name)
            if not one.recorded or 0 in values.shape[1:]:
                continue
            if one.summed:
                values = values.sum(axis=1, dtype=one.recorded_dtype)
            if one.start is not None:
                values = np.where(values == one.start, one.fill, values)
            spread[one.name] = np.full((count, *values.shape[1:]), one.fill, values.dtype)
            spread[one.name][rows] = values
        return spread


def records_of(
    case: "Case",
    settings: CellConfig,
    prediction: NDArray[np.int64],
    under_attack: NDArray[np.bool_],
    values: Mapping[str, NDArray[Any]],
) -> pd.DataFrame:
    """One row for each of the N examples of a case, with the columns that are known.

    prediction: (N,), of the clean images. under_attack: (N,). values: the other columns by name,
    (N,), or (N, E); `broken` is among them.
    """
    broken = values["broken"]
    texts = np.array([*(one.text for one in settings.grid), ""], dtype=object)
    first = np.where(broken.any(axis=1), broken.argmax(axis=1), len(settings.grid))
    known = {
        "index": case.indices.numpy(),
        "label": case.labels.numpy(),
        "target": np.full(len(prediction), -1) if case.targets is None else case.targets.numpy(),
        "clean_prediction": prediction,
        "under_attack": under_attack,
        "smallest_epsilon": texts[first],
        **values,
    }
    return pd.DataFrame(
        {
            one.name: known[one.name].tolist()
            if one.is_list
            else known[one.name].astype(one.recorded_dtype if one.dtype != "str" else object)
            for one in RECORDS
            if one.name in known
        }
    )
