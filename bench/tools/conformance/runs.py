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
from ...engine.adversarials import Album
from ...engine.case import Case
from ...engine.cell import assess
from ...engine.config import Member, SearchName, Settings
from ...engine.preparation import Attackers
from ...evaluate_model import Result
from .fixture_model import (
    GRIDS,
    SMALL_GRIDS,
    TARGETED_GRIDS,
    Ground,
    proving_ground,
    train_stand_in,
)
from .proxies import WatchedSteps, WatchedWhole
from .recorder import Stop, Watch
from .report import Failed, NotTried


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

    def settings(self) -> Settings:
        """As the engine takes it."""
        grid = tuple(Epsilon.parse(one) for one in self.grid)
        return Settings(
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
    watch: Watch
    result: Result | None
    error: Exception | None
    told: str = ""

    def refuse(self, check: str) -> None:
        """Raise Failed when that check has a fault in this run, NotTried when it did not finish."""
        if check in self.watch.faults:
            raise Failed(f"{self.setup.norm}, {self.watch.faults[check]}")
        self.finished()

    def refuse_new(self, usual: "Run") -> None:
        """Raise Failed for a fault that the usual run did not have, or the error that ended it.

        Raises: NotTried when the usual run did not finish either.
        """
        usual.finished()
        new = [seen for name, seen in self.watch.faults.items() if name not in usual.watch.faults]
        for seen in [*new, self.told]:
            if seen:
                raise Failed(seen)

    def finished(self) -> Result:
        """Return the result. Raises: NotTried when there is none."""
        if self.result is None:
            raise NotTried("not tried: the attack did not run to the end")
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
        self.ground: Ground = proving_ground()
        self._attack: Any = None
        self._runs: dict[Setup, Run] = {}

    @property
    def attack(self) -> Any:
        """The attack. Raises: NotTried when it could not be built."""
        if self._attack is None:
            try:
                self._attack = self.build()
            except Exception as error:
                raise NotTried(f"the attack cannot be built: {told(error, self.file)}") from error
        return self._attack

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms that the attack claims, of those that there are."""
        claimed = getattr(self.attack, "norms", NORMS)
        return tuple(one for one in NORMS if one in claimed) or NORMS

    def usual(self) -> Run:
        """Attack every example by bracket search, in the first norm that it claims."""
        return self.run(Setup(self.norms[0]))

    def run(self, setup: Setup) -> Run:
        """Make a run, or return it if it was made before."""
        if setup not in self._runs:
            self._runs[setup] = self._made(setup)
        return self._runs[setup]

    def _made(self, setup: Setup) -> Run:
        network = copy.deepcopy(self.ground.network)  # what a plugin does to it ends with the run
        watch = Watch(network, self.attack)
        kind = WatchedWhole if hasattr(self.attack, "run") else WatchedSteps
        member = Member(kind(self.attack, watch))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(self._runs))  # an attack must not live on torch's generator
            try:
                result = assess(
                    self._case(network, setup), [member], setup.settings(), Silent(),
                    setup.batch_size, Album(),
                )  # fmt: skip
            except (Exception, SystemExit) as error:
                fault = error if isinstance(error, Exception) else RuntimeError("it calls exit()")
                alone = ", on a batch of one" * (watch.batch == 1)
                return Run(setup, watch, None, fault, told(error, self.file) + alone)
        return Run(setup, watch, Result.of(result), None)

    def _case(self, network: torch.nn.Module, setup: Setup) -> Case:
        rows = torch.arange(len(self.ground.images))[: setup.count]
        rows = rows.flip(0) if setup.turned else rows
        return Case(
            module=network,
            device=torch.device("cpu"),
            images=TensorImages(self.ground.images[rows]),
            labels=self.ground.labels[rows],
            indices=rows,
            targets=self.ground.targets[rows] if setup.targeted else None,
            attackers=Attackers(self.ground.owned, train_stand_in),
        )


def told(error: BaseException, file: str) -> str:
    """Say an error in one line, with the line of the plugin's file that it came from."""
    text = " ".join(str(error).split()) or "no message"
    ours = isinstance(error, (Stop, QuintainError))
    said = text if ours else f"{type(error).__name__}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [one.lineno for one in frames if one.filename == file]
    return f"{said} (line {lines[-1]} of {file})" if lines and not ours else said
