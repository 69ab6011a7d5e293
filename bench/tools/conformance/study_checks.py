"""What a study must keep to. Each check is a function whose first line says what it demands."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from ...api import registry
from ...api.epsilon import Epsilon
from ...api.shared.progress_bars import Bar
from ...api.study import StudiedNetwork, Study, StudyResult
from ...datasets.shapes import Shapes
from ...store.checkpoints import weights_hash
from ...store.hashing import configuration
from ...studies.context import Context
from .report import Failed, NotRun

_MODEL = {"name": "resnet", "depth": 8, "width": 0.25}
_EXAMPLES = 16


@dataclass
class StudyTrial:
    """A study plugin with its default settings, on two untrained networks and few small images.

    file: where its code is. failed: whether `run` was tried and raised.
    """

    name: str
    file: str
    failed: bool = False

    def build(self) -> Study:
        """The plugin."""
        found: Study = registry.build("studies", self.name)
        return found

    def run(self) -> tuple[Context, StudyResult]:
        """Do the study, on networks made for it."""
        context = Context(
            Shapes(size=16, n_train=64, n_test=32),
            "shapes",
            _EXAMPLES,
            "Linf",
            Epsilon.parse("8/255"),
            0,
            torch.device("cpu"),
            None,
            Bar(self.name),
            dict(_MODEL),
        )
        context.networks = tuple(
            StudiedNetwork(f"network {seed}", context.untrained(seed=seed)) for seed in range(2)
        )
        return context, self.build().run(context)

    @cached_property
    def done(self) -> tuple[Context, StudyResult]:
        """The study, done once."""
        return self.run()

    def result(self) -> StudyResult:
        """What came of it. Raises: NotRun where the check of it is not met."""
        if self.failed:
            raise NotRun("not tried: run did not come to an end")
        found = self.done[1]
        if not isinstance(found, StudyResult):
            raise NotRun("not tried: it did not give a StudyResult")
        return found


def settings(trial: StudyTrial) -> None:
    """It is a frozen dataclass, whose settings the manifest can hold."""
    one, again = trial.build(), trial.build()
    parameters = getattr(type(one), "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise Failed(f"{type(one).__name__} is not a @dataclass(frozen=True)")
    if configuration(one) != configuration(again):
        raise Failed(f"built twice it differs: {one!r} and {again!r}")


def runs(trial: StudyTrial) -> None:
    """`run` gives a StudyResult with a table, a figure or a note at least."""
    trial.failed = True
    found = trial.done[1]
    trial.failed = False
    if not isinstance(found, StudyResult):
        raise Failed(f"run returned {type(found).__name__}, expected a StudyResult")
    if not (found.tables or found.figures or found.notes):
        raise Failed("there is nothing in it")


def tables(trial: StudyTrial) -> None:
    """Tables are DataFrames with rows and with columns that are not empty, under names of files."""
    for name, table in trial.result().tables.items():
        if not isinstance(table, pd.DataFrame):
            raise Failed(f"{name} is a {type(table).__name__}")
        if not len(table):
            raise Failed(f"{name} has no rows")
    _names([*trial.result().tables, *trial.result().figures])


def figures(trial: StudyTrial) -> None:
    """Figures are matplotlib's, and notes are texts of a line."""
    for name, figure in trial.result().figures.items():
        if not hasattr(figure, "savefig"):
            raise Failed(f"{name} is a {type(figure).__name__}")
    for note in trial.result().notes:
        if not isinstance(note, str) or "\n" in note:
            raise Failed(f"a note is {note!r}")


def repeatable(trial: StudyTrial) -> None:
    """Done again with the same seed, it gives the same tables."""
    one, again = trial.result().tables, trial.run()[1].tables
    if list(one) != list(again):
        raise Failed(f"tables {', '.join(one)}, then {', '.join(again)}")
    for name, table in one.items():
        if not table.equals(again[name]):
            raise Failed(f"{name} differs")


def networks(trial: StudyTrial) -> None:
    """The networks are left as they were: weights, statistics and evaluation mode."""
    fresh = {
        number: weights_hash(trial.done[0].untrained(seed=number))
        for number in range(len(trial.done[0].networks))
    }
    trial.result()
    for number, network in enumerate(trial.done[0].networks):
        if weights_hash(network.module) != fresh[number]:
            raise Failed(f"{network.title}: weights or statistics changed")
        if network.module.training:
            raise Failed(f"{network.title} is left in training mode")


def _names(names: Sequence[str]) -> None:
    for name in names:
        if not name or Path(name).name != name:
            raise Failed(f"'{name}' cannot be the name of a file")


CHECKS = (settings, runs, tables, figures, repeatable, networks)


def trial_of(name: str, source: str) -> StudyTrial:
    """What the checks look at."""
    return StudyTrial(name, source if Path(source).is_file() else "")
