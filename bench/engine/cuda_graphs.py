"""How rows of the batch advance: step by step, or on a GPU several captured steps replayed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..victim import rows as table
from .batch import ActiveBatch

Advance = Callable[[ActiveBatch], None]
Capture = Callable[[Callable[[], None]], Callable[[], None]]
_WARM_UP = 3  # steps, in which libraries choose their kernels and take their memory


class Captured:
    """Several steps between two looks, as replays of one captured step.

    A step is captured the first time that it runs, with the batch' own tensors as its memory: they
    must stay, so the engine writes into them, and what it has replaced is copied back before the
    next replay. A step that cannot be captured, because it asks the device a question on its way,
    is run as it is.

    advance: one step of the batch. capture: from a function without arguments to what repeats its
    work on the device; a CUDA graph.
    """

    def __init__(self, advance: Advance, capture: Capture) -> None:
        self._advance = advance
        self._capture = capture
        self._replay: Callable[[], None] | None = None
        self._state: Any = None
        self._step: Tensor
        self._refused = False

    def __call__(self, batch: ActiveBatch, times: int) -> None:
        """Take some steps."""
        if self._replay is None and not self._refused:
            self._try_capture(batch)
        if self._replay is None:
            for _ in range(times):
                self._advance(batch)
            return
        if batch.state is not self._state:
            table.overwrite(self._state, batch.state)
            batch.state = self._state
        for _ in range(times):
            self._replay()

    def _try_capture(self, batch: ActiveBatch) -> None:
        rehearsal = table.clone(batch)
        for _ in range(_WARM_UP):
            self._advance(rehearsal)
        batch.state = self._state = table.clone(batch.state)
        self._step = batch.step

        def step() -> None:
            self._advance(batch)
            table.overwrite(self._state, batch.state)
            table.overwrite(self._step, batch.step)
            batch.state, batch.step = self._state, self._step

        try:
            self._replay = self._capture(step)
        except RuntimeError:
            self._refused = True
            batch.state, batch.step = self._state, self._step


def repeat(step: Callable[[], None]) -> Callable[[], None]:
    """Capture nothing: a CPU repeats a step by taking it again."""
    return step


def capture_graph(step: Callable[[], None]) -> Callable[[], None]:
    """Capture a function's kernels as a CUDA graph; it is not run by this.

    Raises: RuntimeError when it waits for the device, or does what a graph cannot hold.
    """
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
