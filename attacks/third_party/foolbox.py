"""Attacks of Foolbox (Rauber et al. 2020, doi:10.21105/joss.02607)."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar

from torch import Tensor

from ...bench.api.attack import Access
from ...bench.api.errors import BadParameter
from ...bench.api.threat import NORMS, Norm
from .signatures import factory, parameters_of
from .stand_in import StandIn
from .whole import Task, ThirdPartyAttack, quiet

_DECISION = {
    "BinarySearchContrastReductionAttack",
    "BoundaryAttack",
    "GaussianBlurAttack",
    "HopSkipJumpAttack",
    "InversionAttack",
    "L2ContrastReductionAttack",
    "LinearSearchBlendedUniformNoiseAttack",
    "LinearSearchContrastReductionAttack",
    "SaltAndPepperNoiseAttack",
}
_SCORE = {"GenAttack"}
_UNTARGETED = ("DeepFoolAttack", "FastGradientAttack", "NewtonFoolAttack", "VirtualAdversarial")
_ONE_STEP = ("FastGradientAttack", "Noise", "VirtualAdversarial")
# They need data or starting points, or know no distance.
_LEFT_OUT = {"BinarizationRefinementAttack", "DatasetAttack", "PointwiseAttack", "SpatialAttack"}
_OURS = {"distance", "constraint", "init_attack", "tensorboard", "update_stats_every_k"}
_BY_POWER: Mapping[float, Norm] = {float("inf"): "Linf", 2.0: "L2", 1.0: "L1"}


@dataclass(frozen=True)
class FoolboxAttack(ThirdPartyAttack):
    """A Foolbox attack. Those that minimise are called with epsilons=None, once for the curve."""

    @property
    def title(self) -> str:
        """foolbox:NAME."""
        return f"foolbox:{self.name}"

    def perturb(self, stand_in: StandIn, task: Task) -> Tensor:
        """(b, C, H, W): Foolbox's answer, clipped by it to epsilon."""
        library = importlib.import_module("foolbox")
        attack = _made(library, self.name, self.parameters, task.norm)
        model = library.PyTorchModel(stand_in, bounds=(0, 1), device=task.x.device)
        criteria = library.criteria
        kind = criteria.TargetedMisclassification if task.targeted else criteria.Misclassification
        epsilon = None if self.minimum_norm else task.epsilon
        found: Tensor = attack(model, task.x, kind(task.y), epsilons=epsilon)[1]
        return found


class Foolbox:
    """Attacks of Foolbox, under the names of their classes."""

    package: ClassVar[str] = "foolbox"
    install: ClassVar[str] = "pip install foolbox"

    @property
    def release(self) -> str:
        """The installed version."""
        return metadata.version("foolbox")

    def names(self) -> Iterable[str]:
        """Every attack with a distance; synonyms as well."""
        library = _load()
        base = library.attacks.base.AttackWithDistance
        for name, kind in vars(library.attacks).items():
            is_attack = inspect.isclass(kind) and issubclass(kind, base)
            if is_attack and not inspect.isabstract(kind) and kind.__name__ not in _LEFT_OUT:
                yield name

    def factory(self, name: str) -> Callable[..., Any]:
        """Bind the hyper-parameters of one."""
        library = _load()
        kind = getattr(library.attacks, name)
        taken = parameters_of(kind.__init__, without=_OURS)

        def build(given: Mapping[str, Any]) -> FoolboxAttack:
            norms = _norms(library, name, given)
            minimum = issubclass(kind, library.attacks.base.MinimizationAttack)
            return FoolboxAttack(
                name,
                dict(given),
                self.release,
                access=_access(kind.__name__),
                norms=norms,
                targetable=not any(part in kind.__name__ for part in _UNTARGETED),
                minimum_norm=minimum,
                monotone=not any(part in kind.__name__ for part in _ONE_STEP),
            )

        return factory(build, taken, f"{name} of Foolbox.")


def _load() -> Any:
    with quiet():
        return importlib.import_module("foolbox")


def _access(name: str) -> Access:
    if name in _SCORE:
        return "score"
    return "decision" if name in _DECISION or "Noise" in name else "white-box"


def _chosen(library: Any, name: str, norm: Norm) -> dict[str, Any]:
    """What says to an attack of several norms which one is meant."""
    taken = inspect.signature(getattr(library.attacks, name)).parameters
    if "distance" in taken:
        return {"distance": getattr(library.distances, norm.lower())}
    if "constraint" in taken and norm != "L1":
        return {"constraint": norm.lower()}
    return {}


def _made(library: Any, name: str, parameters: Mapping[str, Any], norm: Norm) -> Any:
    return getattr(library.attacks, name)(**parameters, **_chosen(library, name, norm))


def _norms(library: Any, name: str, parameters: Mapping[str, Any]) -> tuple[Norm, ...]:
    """The norms that an attack minimises or keeps to; building it checks its parameters too."""
    powers = {norm: _made(library, name, parameters, norm).distance.p for norm in NORMS}
    norms = tuple(norm for norm in NORMS if _BY_POWER.get(float(powers[norm])) == norm)
    if not norms:
        raise BadParameter(f"foolbox:{name} is an L0 attack; there are {', '.join(NORMS)}")
    return norms
