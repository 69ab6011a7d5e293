"""Comparisons of a run: with another run that should come out the same, and with random noise."""

from typing import Any

import torch

from .fixture_model import EXAMPLES, NOISE_DRAWS
from .report import Failed
from .runs import Run, Trial

_MARGIN = EXAMPLES // 10  # examples more than noise breaks, at least
_FAR = 0.75  # of epsilon; in L2 the box holds some back
_STEPS = 10  # of a plain descent
_COUNTED = ["under_attack", "smallest_epsilon", "forward", "backward", "queries"]


def beat_noise(trial: Trial, run: Run, point: int) -> None:
    """Raise Failed unless the run broke more at a point of its grid than random noise does."""
    records = run.finished().records
    setup, epsilon = run.setup, run.setup.grid[point]
    broken = sum(one[point] for one in records["broken"])
    by_noise = trial.fixture.noise(setup.norm, epsilon, targeted=setup.targeted)
    wanted = by_noise + _MARGIN
    if broken < wanted:
        raise Failed(
            f"{setup.norm}, epsilon {epsilon:g}: it breaks {broken} of {EXAMPLES} examples, the "
            f"best of {NOISE_DRAWS} random points {by_noise}; expected at least {wanted}"
        )


def go_as_far_as_allowed(trial: Trial, run: Run) -> None:
    """Raise Failed when most of its attempts in vain stayed well inside the ball."""
    result = run.finished()
    epsilon = run.setup.grid[0]
    unbroken = [
        int(row["index"]) for row in result.records.to_dict("records") if not row["broken"][0]
    ]
    reached = [run.recorder.reached[example, epsilon] for example in unbroken]
    if reached and sorted(reached)[len(reached) // 2] < _FAR:
        raise Failed(
            f"{run.setup.norm}, epsilon {epsilon:g}: of examples that it does not break, x_adv "
            f"comes no farther than {max(reached):.2f} of epsilon; expected at least {_FAR:g}"
        )


def keep_up_with_descent(trial: Trial, run: Run) -> None:
    """Raise Failed when the run broke fewer than half of what plain gradient steps break."""
    records = run.finished().records
    norm, epsilon = run.setup.norm, run.setup.grid[0]
    steps = min(_STEPS, int(getattr(trial.attack, "steps", _STEPS)))
    broken = sum(one[0] for one in records["broken"])
    by_descent = trial.fixture.descent(norm, epsilon, steps)
    if 2 * broken < by_descent:
        raise Failed(
            f"{norm}, epsilon {epsilon:g}: it breaks {broken} of {EXAMPLES} examples, {steps} "
            f"plain gradient step{'s' * (steps > 1)} {by_descent}; expected at least half of that"
        )


def same_outcome(first: Run, other: Run, when: str) -> None:
    """Raise Failed unless every example of the other run came out as in the first, to the bit."""
    first.finished()
    if other.result is None:
        raise Failed(f"{when}: {other.described}")
    for (example, restart, epsilon), ended in other.recorder.last.items():
        before = first.recorder.last.get((example, restart, epsilon))
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
