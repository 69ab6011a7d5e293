"""AutoAttack by its authors (Croce & Hein 2020, arXiv:2003.01690): the package pyautoattack."""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar, cast

from torch import Tensor

from .signatures import factory
from .stand_in import StandIn
from .whole import Task, ThirdPartyAttack


@dataclass(frozen=True)
class TheirAutoAttack(ThirdPartyAttack):
    """AutoAttack of one version: standard, plus (more restarts and attacks), or rand (EOT).

    Deviation: of a model with fewer than ten classes the targeted attacks try all others, where the
    package would fail.
    """

    @property
    def title(self) -> str:
        """autoattack:VERSION."""
        return f"autoattack:{self.name}"

    def perturb(self, stand_in: StandIn, task: Task) -> Tensor:
        """(b, C, H, W): the package's answer."""
        library = importlib.import_module("pyautoattack")
        adversary = library.AutoAttack(
            stand_in,
            norm=task.norm,
            eps=task.epsilon,
            seed=task.seed,
            version=self.name,
            device=task.x.device,
        )
        for part in (adversary.apgd_targeted, adversary.fab):
            part.n_target_classes = min(part.n_target_classes, task.n_classes - 1)
        trace = sys.gettrace()  # a check of theirs takes it away
        try:
            found, _ = adversary.run_standard_evaluation(task.x, task.y, batch_size=len(task.x))
        finally:
            sys.settrace(trace)
        return cast(Tensor, found)


class AutoAttackPackage:
    """AutoAttack by its authors: standard, plus or rand."""

    package: ClassVar[str] = "pyautoattack"
    install: ClassVar[str] = "pip install pyautoattack"

    @property
    def release(self) -> str:
        """The installed version."""
        return metadata.version("pyautoattack")

    def names(self) -> Iterable[str]:
        """Its versions."""
        return ("standard", "plus", "rand")

    def factory(self, name: str) -> Callable[..., Any]:
        """Bind one version; there is nothing to set."""

        def build(given: Mapping[str, Any]) -> TheirAutoAttack:
            return TheirAutoAttack(name, dict(given), self.release, targetable=False)

        return factory(build, {}, f"AutoAttack, version {name}.")
