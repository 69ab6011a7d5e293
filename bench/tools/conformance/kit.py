"""The kit: every check on one plugin, or on all attacks of a file."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ...api import registry
from ...api.attack import Cascade
from ...api.shared.torch_switches import number_of_threads
from ...engine.config import AttackStage, flatten_cascade
from ...suite.lookup import attacks_named
from .checks import CHECKS
from .report import CheckOutcome, Failed, NotRun, Outcome, Report
from .runs import Trial, described


def check_plugin(plugin: str) -> list[Report]:
    """Check an attack by its name, or every attack that a Python file registers.

    Raises: UnknownPlugin; BadPlugin when the file cannot be loaded or registers no attack.
    """
    return [
        check_attack(name, build, one.source)
        for one in attacks_named(plugin)
        for name, build in _parts(one.name)
    ]


def _parts(name: str) -> list[tuple[str, Callable[[], Any]]]:
    """An attack, or each attack of a cascade, with what makes it."""
    build = partial(registry.build, "attacks", name)
    try:
        attack = build()
    except Exception:  # the kit's first check says what is wrong
        return [(name, build)]
    if not isinstance(attack, Cascade):
        return [(name, build)]
    stages = flatten_cascade([AttackStage(attack)])

    def stage(number: int) -> Any:
        return flatten_cascade([AttackStage(build())])[number].attack

    return [
        (f"{name} {number + 1}: {type(one.attack).__name__}", partial(stage, number))
        for number, one in enumerate(stages)
    ]


def check_attack(name: str, build: Callable[[], Any], source: str = "") -> Report:
    """Make every check on the attack that `build` makes with its default parameters.

    source: the file or the distribution that it comes from.
    """
    with number_of_threads(1):  # on images this small, more only wait for one another
        return Report(name, source, tuple(_outcomes(Trial(build, source))))


def _outcomes(trial: Trial) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for check in CHECKS:
        if outcomes and outcomes[0].outcome == "FAIL":  # not even the first one
            outcomes.append(Outcome(check.__name__, _demand(check), "skip"))
        else:
            outcomes.append(_outcome(check, trial))
    return outcomes


def _outcome(check: Callable[[Trial], None], trial: Trial) -> Outcome:
    outcome: CheckOutcome = "pass"
    seen = ""
    try:
        check(trial)
    except NotRun as error:
        outcome, seen = "skip", str(error)
    except Failed as error:
        outcome, seen = "FAIL", str(error)
    except Exception as error:  # a plugin may raise anything from anywhere
        outcome, seen = "FAIL", described(error, trial.file)
    return Outcome(check.__name__, _demand(check), outcome, seen)


def _demand(check: Callable[[Trial], None]) -> str:
    return (check.__doc__ or "").partition("\n")[0]
