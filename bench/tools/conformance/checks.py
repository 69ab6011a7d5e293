"""What an attack must keep to. Each check is a function whose first line says what it demands."""

import dataclasses
import json
from collections.abc import Callable
from typing import get_args

import torch

from ...api.attack import Access
from ...api.errors import AccessDenied
from ...api.threat import NORMS, make_ball
from ...store.hashing import configuration
from .comparisons import beat_noise, go_as_far_as_allowed, keep_up_with_descent, same_outcome
from .report import Failed, NotRun
from .runs import Setup, Trial

_BUDGETS = (1, 2, 17, 100)
_FEW = 5
_FEWER = 3


def builds(trial: Trial) -> None:
    """It is built with its default parameters, and says what it needs."""
    try:
        attack = trial.attack
    except NotRun as error:
        raise Failed(str(error)) from error
    levels = get_args(Access)
    access = getattr(attack, "access", None)
    if access not in levels:
        raise Failed(f"access is {access!r}, expected one of {', '.join(levels)}")
    if not hasattr(attack, "run"):
        for name in ("start", "step"):
            if not callable(getattr(attack, name, None)):
                raise Failed(f"it has no method {name}; an attack has start and step, or run")
        steps = getattr(attack, "steps", None)
        if not isinstance(steps, int) or steps < 1:
            raise Failed(f"steps is {steps!r}, expected an integer of at least 1")
    norms = getattr(attack, "norms", NORMS)
    if not norms or isinstance(norms, str) or not set(norms) <= set(NORMS):
        raise Failed(f"norms is {norms!r}, expected some of {', '.join(NORMS)} in a tuple")


def settings(trial: Trial) -> None:
    """It is a frozen dataclass: hashable, and the same in repr and records when built again."""
    attack, again = trial.attack, trial.build()
    parameters = getattr(type(attack), "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise Failed(f"{type(attack).__name__} is not a @dataclass(frozen=True)")
    if attack != again or repr(attack) != repr(again):
        raise Failed(f"built twice it differs: {attack!r} and {again!r}")
    if hash(attack) != hash(again):
        raise Failed("built twice its hash differs")
    if dataclasses.replace(attack) != attack:
        raise Failed("a copy of it with the same fields is not equal to it")
    shown = json.dumps(configuration(attack), allow_nan=False)
    if " at 0x" in shown:
        raise Failed(f"its records would hold an address, which no rerun repeats: {shown}")


def access(trial: Trial) -> None:
    """It asks no more of its victim than its access level allows."""
    for norm in trial.norms:
        run = trial.run(Setup(norm))
        if isinstance(run.error, AccessDenied):
            raise Failed(run.described)
        run.refuse("access")


def runs(trial: Trial) -> None:
    """It runs to the end, in each norm that it states."""
    for norm in trial.norms:
        run = trial.run(Setup(norm))
        if run.result is None:
            raise Failed(f"{norm}: {run.described}")


def shape(trial: Trial) -> None:
    """x_adv is shaped like x; its state's tensors and its losses have a row for each example."""
    _refuse_all(trial, "shape")


def finite(trial: Trial) -> None:
    """x_adv is finite after every step."""
    _refuse_all(trial, "finite")


def box(trial: Trial) -> None:
    """x_adv lies in [0, 1] after every step."""
    _refuse_all(trial, "box")


def ball(trial: Trial) -> None:
    """x_adv lies within each example's epsilon after every step (float64, no tolerance)."""
    _refuse_all(trial, "ball")
    for norm in trial.norms:
        run = trial.run(Setup(norm))
        for epsilon, x_adv in zip(run.setup.grid, run.adversarials(), strict=True):
            clean = trial.fixture.images
            inside = make_ball(norm, clean, torch.full((len(clean),), epsilon).double())
            if not inside.contains(x_adv).all():
                raise Failed(f"{norm}: an adversarial example lies outside epsilon {epsilon:g}")


def inputs(trial: Trial) -> None:
    """It changes neither the problem nor the state that it is given."""
    _refuse_all(trial, "inputs")


def model(trial: Trial) -> None:
    """It leaves the model's weights, buffers, mode and requires_grad as they are."""
    _refuse_all(trial, "model")


def switches(trial: Trial) -> None:
    """It leaves torch's switches as they are: grad mode, default dtype and device, and others."""
    _refuse_all(trial, "switches")


def counts(trial: Trial) -> None:
    """It asks through the victim only, so that the counts in the records are true."""
    run = trial.usual()
    run.refuse("counts")
    for row in run.finished().records.to_dict("records"):
        example = int(row["index"])
        asked, tries = run.recorder.queries[example], run.recorder.tries[example]
        if not asked <= row["queries"] <= asked + tries:  # a last look at the end of each attempt
            raise Failed(f"example {example}: {row['queries']} queries recorded, {asked} counted")
        if row["forward"] != row["queries"] or row["backward"] != run.recorder.backward[example]:
            raise Failed(f"example {example}: its passes are not those counted")


def seed(trial: Trial) -> None:
    """The same seed gives the same result, to the bit."""
    first = trial.usual()
    same_outcome(
        first, trial.run(dataclasses.replace(first.setup, repeat=1)), "when it was run again"
    )


def batches(trial: Trial) -> None:
    """The batch size and the neighbours in it do not change a result, to the bit."""
    first = trial.usual()
    other = trial.run(dataclasses.replace(first.setup, batch_size=64, turned=True))
    same_outcome(first, other, "in a larger batch in reverse order")


def single(trial: Trial) -> None:
    """It works on a batch of one, with the same result."""
    first = trial.usual()
    same_outcome(
        first, trial.run(dataclasses.replace(first.setup, count=1)), "in a batch of its own"
    )


def exhaustive(trial: Trial) -> None:
    """It works with each epsilon on its own, and on examples that are broken already."""
    run = trial.run(Setup(trial.norms[0], "exhaustive", early_leaving=False, count=_FEW))
    run.refuse_new(trial.usual())


def budget(trial: Trial) -> None:
    """It keeps to a query budget, and stands being cut short by it."""
    for allowed in _BUDGETS:
        run = trial.run(Setup(trial.norms[0], count=_FEW, query_budget=allowed))
        try:
            run.refuse_new(trial.usual())
        except Failed as error:
            raise Failed(f"with {allowed} queries: {error}") from error
        for row in run.finished().records.to_dict("records"):
            spent = max(int(row["queries"]), run.recorder.queries[int(row["index"])])
            if spent > allowed:
                raise Failed(f"example {row['index']} spent {spent} of {allowed} queries")


def noise(trial: Trial) -> None:
    """It breaks more examples than random noise of the same norm, unless it is a baseline."""
    if getattr(trial.attack, "baseline", False):
        return
    for norm in trial.norms:
        run = trial.run(Setup(norm))
        beat_noise(trial, run, point=1)


def reach(trial: Trial) -> None:
    """It uses all of epsilon where it has to, unless it looks for the nearest point."""
    attack = trial.attack
    inside = getattr(attack, "stays_in_ball", True) and not getattr(attack, "minimum_norm", False)
    if inside and not getattr(attack, "baseline", False):
        for norm in trial.norms:
            run = trial.run(
                Setup(norm, "exhaustive", early_leaving=False, count=_FEWER, small=True)
            )
            run.refuse_new(trial.usual())
            go_as_far_as_allowed(trial, run)


def descent(trial: Trial) -> None:
    """With gradients it breaks at least half of the examples that plain gradient steps break."""
    attack = trial.attack
    if attack.access == "white-box" and not getattr(attack, "baseline", False):
        for norm in trial.norms:
            run = trial.run(Setup(norm, "exhaustive", largest=True))  # no help by the search
            keep_up_with_descent(trial, run)


def targeted(trial: Trial) -> None:
    """It reaches target classes more often than random noise, unless it says it cannot aim."""
    if getattr(trial.attack, "targetable", True):
        run = trial.run(Setup(trial.norms[0], targeted=True))
        run.refuse_new(trial.usual())
        if not getattr(trial.attack, "baseline", False):
            beat_noise(trial, run, point=1)


CHECKS: tuple[Callable[[Trial], None], ...] = (
    builds,
    settings,
    access,
    runs,
    shape,
    finite,
    box,
    ball,
    inputs,
    model,
    switches,
    counts,
    seed,
    batches,
    single,
    exhaustive,
    budget,
    noise,
    reach,
    descent,
    targeted,
)


def _refuse_all(trial: Trial, check: str) -> None:
    for norm in trial.norms:
        trial.run(Setup(norm)).refuse(check)
