"""AutoAttack by its authors (Croce & Hein 2020, arXiv:2003.01690), from their package."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar

from torch import Tensor

from .signatures import factory
from .stand_in import StandIn
from .whole import ForeignAttack, Task


@dataclass(frozen=True)
class TheirAutoAttack(ForeignAttack):
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
        library = importlib.import_module("autoattack")
        adversary = library.AutoAttack(
            stand_in,
            norm=task.norm,
            eps=task.epsilon,
            seed=task.seed,
            verbose=False,
            version=self.name,
            device=task.x.device,
        )
        for part in (adversary.apgd_targeted, adversary.fab):
            part.n_target_classes = min(part.n_target_classes, task.n_classes - 1)
        found: Tensor = adversary.run_standard_evaluation(task.x, task.y, bs=len(task.x))
        return found


class AutoAttackPackage:
    """AutoAttack by its authors: standard, plus or rand."""

    package: ClassVar[str] = "autoattack"
    install: ClassVar[str] = "pip install git+https://github.com/fra31/auto-attack"

    @property
    def release(self) -> str:
        """The installed version."""
        try:
            return metadata.version("autoattack")
        except metadata.PackageNotFoundError:  # a checkout on the path
            return "unknown"

    def names(self) -> Iterable[str]:
        """Its versions."""
        return ("standard", "plus", "rand")

    def factory(self, name: str) -> Callable[..., Any]:
        """Bind one version; there is nothing to set."""

        def build(given: Mapping[str, Any]) -> TheirAutoAttack:
            return TheirAutoAttack(name, dict(given), self.release, targetable=False)

        return factory(build, {}, f"AutoAttack, version {name}.")
