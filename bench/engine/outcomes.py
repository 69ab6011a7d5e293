"""What has been shown of every example so far: a few bytes each, however many there are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outcomes:
    """One row for each of N examples, one column for each of E points of the grid.

    broken, attacked: (N, E) bool. moved, stayed: (N,) bool, an attempt that took all its steps
    ended away from the clean image, and one ended there in vain. distance: (N,) float64, norm of
    the smallest adversarial perturbation that held when the model was asked again, else infinite.
    not_reproduced: (N,) bool, one did not hold. cut_short: (N,) bool, the query budget ended before
    the search. forward, backward: (N,) int64, passes. queries: (N, E) int32, asked in the attempts
    at each point. solved: (N, E) int32, how many had been asked when the point was first broken, 0
    where it was not and for white-box attacks. stage: (N, E) int8, which attack of the cascade
    broke the point, -1 none.
    scores: (N, E) float32, of a model with a reject option: how far the best candidate at each
    point is from being rejected, positive where it is. The best is the least so of those that fool
    the classifier within it; NaN without one. Of other models (N, 0).
    """

    broken: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    stayed: NDArray[np.bool_]
    attacked: NDArray[np.bool_]
    distance: NDArray[np.float64]
    not_reproduced: NDArray[np.bool_]
    cut_short: NDArray[np.bool_]
    forward: NDArray[np.int64]
    backward: NDArray[np.int64]
    queries: NDArray[np.int32]
    solved: NDArray[np.int32]
    stage: NDArray[np.int8]
    scores: NDArray[np.float32]

    @property
    def idle(self) -> int:
        """How many examples resisted, and no attempt on them ended away from the clean image."""
        return int((self.stayed & ~self.moved & ~self.broken.any(axis=1)).sum())

    @classmethod
    def open(cls, examples: int, points: int, *, rejecting: bool = False) -> "Outcomes":
        """Begin with nothing tried. rejecting: whether the model has a reject option."""

        def empty(*shape: int, of: Any) -> Any:
            return np.zeros(shape, dtype=of)

        return cls(
            broken=empty(examples, points, of=bool),
            moved=empty(examples, of=bool),
            stayed=empty(examples, of=bool),
            attacked=empty(examples, points, of=bool),
            distance=np.full(examples, np.inf),
            not_reproduced=empty(examples, of=bool),
            cut_short=empty(examples, of=bool),
            forward=empty(examples, of=np.int64),
            backward=empty(examples, of=np.int64),
            queries=empty(examples, points, of=np.int32),
            solved=empty(examples, points, of=np.int32),
            stage=np.full((examples, points), -1, dtype=np.int8),
            scores=np.full((examples, points if rejecting else 0), np.nan, dtype=np.float32),
        )
