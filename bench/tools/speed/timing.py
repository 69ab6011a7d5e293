"""Times that can be compared: contenders take turns in one process, ratios are within a round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """Seconds, read when the device has done all that it was given."""
    if device.type != "cuda":
        return time.perf_counter

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


def take_turns(
    runs: Mapping[str, Callable[[], object]], repeats: int, clock: Clock
) -> dict[str, list[float]]:
    """Seconds of every run in each of `repeats` rounds; another one goes first in each round.

    What slows the machine down for a while thus slows all of them, and ratios stay.
    """
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            began = clock()
            runs[name]()
            seconds[name].append(clock() - began)
    return seconds


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some figures."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise at least one figure."""
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def of_ratios(cls, values: Sequence[float], base: Sequence[float]) -> "Spread":
        """Summarise the ratios of two runs, taken round by round."""
        return cls.of([one / other for one, other in zip(values, base, strict=True)])
