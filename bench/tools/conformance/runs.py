"""Runs of one attack on the proving ground, each made once, under watch."""

import copy
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...api.errors import QuintainError
from ...api.progress import Silent
from ...api.threat import NORMS, Epsilon, Norm
from ...datasets.in_memory import TensorImages
from ...engine.adversarials import InMemoryStore
from ...engine.case import Case
from ...engine.cell import assess
from ...engine.config import AttackStage, CellConfig, SearchName
from ...engine.preparation import Attackers
from ...evaluate_model import Result
from .fixture_model import (
    GRIDS,
    SMALL_GRIDS,
    TARGETED_GRIDS,
    FixtureModel,
    fixture_model,
    train_stand_in,
)
from .proxies import WatchedSteps, WatchedWhole
from .recorder import CallRecorder, Stop
from .report import Failed, NotRun


@dataclass(frozen=True)
class Setup:
    """How a run differs from the usual one.

    count: how many of the ground's examples. turned: last example first. small: at an epsilon that
    breaks hardly any. largest: at the largest epsilon of the grid alone. repeat: tells apart runs
    that should come out the same.
    """

    norm: Norm
    search: SearchName = "bracket"
    early_leaving: bool = True
    count: int | None = None
    batch_size: int = 16
    turned: bool = False
    query_budget: int | None = None
    targeted: bool = False
    small: bool = False
    largest: bool = False
    repeat: int = 0

    @property
    def grid(self) -> tuple[float, ...]:
        """Epsilons, ascending."""
        if self.small:
            return SMALL_GRIDS[self.norm]
        if self.largest:
            return GRIDS[self.norm][-1:]
        return (TARGETED_GRIDS if self.targeted else GRIDS)[self.norm]

    def settings(self) -> CellConfig:
        """As the engine takes it."""
        grid = tuple(Epsilon.parse(one) for one in self.grid)
        return CellConfig(
            norm=self.norm,
            grid=grid,
            search=self.search,
            query_budget=self.query_budget,
            early_leaving=self.early_leaving,
            targeted=self.targeted,
        )


@dataclass(frozen=True)
class Run:
    """What a run came to: a result, or the error that ended it."""

    setup: Setup
    recorder: CallRecorder
    result: Result | None
    error: Exception | None
    described: str = ""

    def refuse(self, check: str) -> None:
        """Raise Failed when that check has a fault in this run, NotRun when it did not finish."""
        if check in self.recorder.faults:
            raise Failed(f"{self.setup.norm}, {self.recorder.faults[check]}")
        self.finished()

    def refuse_new(self, usual: "Run") -> None:
        """Raise Failed for a fault that the usual run did not have, or the error that ended it.

        Raises: NotRun when the usual run did not finish either.
        """
        usual.finished()
        new = [
            seen for name, seen in self.recorder.faults.items() if name not in usual.recorder.faults
        ]
        for seen in [*new, self.described]:
            if seen:
                raise Failed(seen)

    def finished(self) -> Result:
        """Return the result. Raises: NotRun when there is none."""
        if self.result is None:
            raise NotRun("not tried: the attack did not run to the end")
        return self.result

    def adversarials(self) -> Tensor:
        """(points, n, C, H, W): adversarial examples at each epsilon, the first example first."""
        result = self.finished()
        images = torch.stack([result.adversarials(one) for one in self.setup.grid])
        return images.flip(1) if self.setup.turned else images


class Trial:
    """An attack on trial.

    build: makes it with its default parameters. file: where it is written, "" if not known.
    """

    def __init__(self, build: Callable[[], Any], file: str = "") -> None:
        self.build = build
        self.file = file
        self.fixture: FixtureModel = fixture_model()
        self._attack: Any = None
        self._runs: dict[Setup, Run] = {}

    @property
    def attack(self) -> Any:
        """The attack. Raises: NotRun when it could not be built."""
        if self._attack is None:
            try:
                self._attack = self.build()
            except Exception as error:
                raise NotRun(
                    f"the attack cannot be built: {described(error, self.file)}"
                ) from error
        return self._attack

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms that the attack states, of those that there are."""
        claimed = getattr(self.attack, "norms", NORMS)
        return tuple(one for one in NORMS if one in claimed) or NORMS

    def usual(self) -> Run:
        """Attack every example by bracket search, in the first norm that it states."""
        return self.run(Setup(self.norms[0]))

    def run(self, setup: Setup) -> Run:
        """Make a run, or return it if it was made before."""
        if setup not in self._runs:
            self._runs[setup] = self._made(setup)
        return self._runs[setup]

    def _made(self, setup: Setup) -> Run:
        network = copy.deepcopy(self.fixture.network)  # what a plugin does to it ends with the run
        recorder = CallRecorder(network, self.attack)
        kind = WatchedWhole if hasattr(self.attack, "run") else WatchedSteps
        stage = AttackStage(kind(self.attack, recorder))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(self._runs))  # an attack must not live on torch's generator
            try:
                result = assess(
                    self._case(network, setup), [stage], setup.settings(), Silent(),
                    setup.batch_size, InMemoryStore(),
                )  # fmt: skip
            except (Exception, SystemExit) as error:
                fault = error if isinstance(error, Exception) else RuntimeError("it calls exit()")
                alone = ", on a batch of one" * (recorder.batch == 1)
                return Run(setup, recorder, None, fault, described(error, self.file) + alone)
        return Run(setup, recorder, Result.of(result), None)

    def _case(self, network: torch.nn.Module, setup: Setup) -> Case:
        rows = torch.arange(len(self.fixture.images))[: setup.count]
        rows = rows.flip(0) if setup.turned else rows
        return Case(
            module=network,
            device=torch.device("cpu"),
            images=TensorImages(self.fixture.images[rows]),
            labels=self.fixture.labels[rows],
            indices=rows,
            targets=self.fixture.targets[rows] if setup.targeted else None,
            attackers=Attackers(self.fixture.owned, train_stand_in),
        )


def described(error: BaseException, file: str) -> str:
    """Say an error in one line, with the line of the plugin's file that it came from."""
    text = " ".join(str(error).split()) or "no message"
    ours = isinstance(error, (Stop, QuintainError))
    said = text if ours else f"{type(error).__name__}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [one.lineno for one in frames if one.filename == file]
    return f"{said} (line {lines[-1]} of {file})" if lines and not ours else said
