"""Attacks of torchattacks (Kim 2020, arXiv:2010.01950)."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, ClassVar

from torch import Tensor, nn

from ...bench.api.attack import Access
from ...bench.api.errors import BadParameter
from ...bench.api.threat import NORMS, Norm
from .signatures import factory, parameters_of
from .stand_in import StandIn
from .whole import Task, ThirdPartyAttack, quiet

_ACCESS: Mapping[str, Access] = {"Square": "score", "SPSA": "score", "GN": "decision"}
_NORMS: Mapping[str, tuple[Norm, ...]] = {
    **dict.fromkeys(("APGD", "APGDT", "AutoAttack", "Square"), ("Linf", "L2")),
    "FAB": NORMS,
    **dict.fromkeys(("CW", "DeepFool", "PGDL2", "PGDRSL2", "GN"), ("L2",)),
    **dict.fromkeys(("EADL1", "EADEN"), ("L1",)),
}
_NEAREST = {"CW", "DeepFool", "EADL1", "EADEN", "GN"}
_ONE_STEP = {"FGSM", "FFGSM"}
_SINGLY = {"DeepFool"}
# They count changed pixels, whatever the change (L0); or need more than a model.
_LEFT_OUT = {"JSMA", "LGV", "MultiAttack", "OnePixel", "Pixle", "SparseFool", "VANILA"}
_RADIUS = ("eps", "max_epsilon")
_OURS = {"model", "norm", "n_classes", "verbose", *_RADIUS}


@dataclass(frozen=True)
class TorchattacksAttack(ThirdPartyAttack):
    """An attack of torchattacks.

    step_size: as a fraction of epsilon, in place of the library's `alpha`, which is a length.
    """

    step_size: float | None = field(default=None, kw_only=True)

    @property
    def title(self) -> str:
        """torchattacks:NAME."""
        return f"torchattacks:{self.name}"

    def perturb(self, stand_in: StandIn, task: Task) -> Tensor:
        """(b, C, H, W): the library's answer."""
        attack = self.made(stand_in, task)
        if task.targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        found: Tensor = attack(task.x, task.y)
        return found

    def made(self, module: nn.Module, task: Task) -> Any:
        """The library's object for a task."""
        kind = getattr(importlib.import_module("torchattacks"), self.name)
        ours = {
            "norm": task.norm,
            "n_classes": task.n_classes,
            "seed": task.seed,
            **dict.fromkeys(_RADIUS, task.epsilon),
        }
        if self.step_size is not None:
            ours["alpha"] = self.step_size * task.epsilon
        taken = inspect.signature(kind).parameters
        return kind(module, **{**{k: v for k, v in ours.items() if k in taken}, **self.parameters})


class Torchattacks:
    """Attacks of torchattacks, under the names of their classes."""

    package: ClassVar[str] = "torchattacks"
    install: ClassVar[str] = "pip install --no-deps torchattacks"

    @property
    def release(self) -> str:
        """The installed version."""
        return metadata.version("torchattacks")

    def names(self) -> Iterable[str]:
        """Every attack that keeps to one of our norms."""
        library = _load()
        for name, kind in vars(library).items():
            base = library.attack.Attack
            is_attack = inspect.isclass(kind) and issubclass(kind, base) and kind is not base
            if is_attack and name not in _LEFT_OUT:
                yield name

    def factory(self, name: str) -> Callable[..., Any]:
        """Bind the hyper-parameters of one."""
        kind = getattr(_load(), name)
        taken = parameters_of(kind.__init__, without=_OURS)
        if "alpha" in taken:
            taken["step_size"] = (float | None, None)

        def build(given: Mapping[str, Any]) -> TorchattacksAttack:
            parameters = dict(given)
            step_size = parameters.pop("step_size", None)
            if step_size is not None and "alpha" in parameters:
                raise BadParameter(f"torchattacks:{name}: give step_size or alpha, not both")
            with quiet():
                modes = kind(nn.Linear(1, 1), **parameters).supported_mode
            return TorchattacksAttack(
                name,
                parameters,
                self.release,
                access=_ACCESS.get(name, "white-box"),
                norms=_NORMS.get(name, ("Linf",)),
                targetable="targeted" in modes,
                minimum_norm=name in _NEAREST,
                singly=name in _SINGLY,
                monotone=name not in _ONE_STEP,
                step_size=step_size,
            )

        return factory(build, taken, f"{name} of torchattacks.")


def _load() -> Any:
    with quiet():
        return importlib.import_module("torchattacks")
