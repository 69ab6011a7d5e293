"""Comparisons of a run: with another run that should come out the same, and with random noise."""

from typing import Any

import torch

from .ground import EXAMPLES, NOISE_DRAWS
from .report import Failed
from .trial import Run, Trial

_MARGIN = EXAMPLES // 10  # examples more than noise breaks, at least
_COUNTED = ["under_attack", "smallest_epsilon", "forward", "backward", "queries"]


def beat_noise(trial: Trial, run: Run, point: int) -> None:
    """Raise Failed unless the run broke more at a point of its grid than random noise does."""
    records = run.finished().records
    setup, epsilon = run.setup, run.setup.grid[point]
    broken = sum(one[point] for one in records["broken"])
    by_noise = trial.ground.noise(setup.norm, epsilon, targeted=setup.targeted)
    wanted = by_noise + _MARGIN
    if broken < wanted:
        raise Failed(
            f"{setup.norm}, epsilon {epsilon:g}: it breaks {broken} of {EXAMPLES} examples, the "
            f"best of {NOISE_DRAWS} random points {by_noise}; expected at least {wanted}"
        )


def same_outcome(first: Run, other: Run, when: str) -> None:
    """Raise Failed unless every example of the other run came out as in the first, to the bit."""
    first.finished()
    if other.result is None:
        raise Failed(f"{when}: {other.told}")
    for (example, restart, epsilon), ended in other.watch.last.items():
        before = first.watch.last.get((example, restart, epsilon))
        where = f"example {example}, epsilon {epsilon:g}"
        if before is None:
            raise Failed(f"{where}: tried only {when}")
        if not torch.equal(before, ended):
            gap = float((before - ended).abs().max())
            raise Failed(f"{where}: x_adv ended elsewhere {when}, by up to {gap:.2g}")
    adversarials = other.adversarials()
    if not torch.equal(first.adversarials()[:, : adversarials.shape[1]], adversarials):
        raise Failed(f"the adversarial examples differ {when}")
    one, two = (_counted(run) for run in (first, other))
    for example, row in two.items():
        if row != one[example]:
            raise Failed(f"example {example}: {_difference(one[example], row)} {when}")


def _counted(run: Run) -> dict[int, dict[str, Any]]:
    records = run.finished().records.set_index("index")[_COUNTED]
    return {int(str(index)): dict(row) for index, row in records.iterrows()}


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    name = next(name for name in one if one[name] != other[name])
    return f"{name} was {one[name]}, and {other[name]}"
