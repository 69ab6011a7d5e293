"""The kit: every check on one plugin, or on all plugins of a file."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ...api import registry
from ...api.attack import Cascade
from ...api.plugins.plugin import KINDS, Plugin
from ...api.shared.torch_switches import number_of_threads
from ...engine.config import AttackStage, flatten_cascade
from ...suite.lookup import plugins_named
from . import dataset_checks, defense_checks, model_checks, study_checks
from .checks import CHECKS
from .report import CheckOutcome, Failed, NotRun, Outcome, Report
from .runs import Trial, described

# the checks of each kind but attacks, and what they look at by a plugin's name and source
OTHERS: Mapping[str, tuple[Sequence[Callable[[Any], None]], Callable[[str, str], Any]]] = {
    "models": (model_checks.CHECKS, model_checks.trial_of),
    "defenses": (defense_checks.CHECKS, defense_checks.trial_of),
    "datasets": (dataset_checks.CHECKS, dataset_checks.trial_of),
    "studies": (study_checks.CHECKS, study_checks.trial_of),
}


def check_plugin(plugin: str) -> list[Report]:
    """Check the plugins of a name, or every one that a Python file registers.

    Raises: UnknownPlugin; BadPlugin when the file cannot be loaded or registers none to check.
    """
    return [report for one in plugins_named(plugin) for report in _reports(one)]


def _reports(plugin: Plugin) -> list[Report]:
    if plugin.kind == "attacks":
        return [check_attack(name, build, plugin.source) for name, build in _parts(plugin.name)]
    checks, trial_of = OTHERS[plugin.kind]
    with number_of_threads(1):
        outcomes = _outcomes(trial_of(plugin.name, plugin.source), checks)
    return [Report(plugin.name, plugin.source, tuple(outcomes), KINDS[plugin.kind].singular)]


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
        return Report(name, source, tuple(_outcomes(Trial(build, source), CHECKS)))


def _outcomes(trial: Any, checks: Sequence[Callable[[Any], None]]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for check in checks:
        if outcomes and outcomes[0].outcome == "FAIL":  # not even the first one
            outcomes.append(Outcome(check.__name__, _demand(check), "skip"))
        else:
            outcomes.append(_outcome(check, trial))
    return outcomes


def _outcome(check: Callable[[Any], None], trial: Any) -> Outcome:
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


def _demand(check: Callable[[Any], None]) -> str:
    return (check.__doc__ or "").partition("\n")[0]
