"""Attacks of the Adversarial Robustness Toolbox (Nicolae et al. 2018, arXiv:1807.01069)."""

import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...bench.api.attack import Access
from ...bench.api.errors import BadParameter
from ...bench.api.threat import NORMS, Norm
from .signatures import factory, parameters_of
from .stand_in import StandIn
from .whole import Task, ThirdPartyAttack, quiet


@dataclass(frozen=True)
class _Kind:
    """What the toolbox does not say of an attack in a way that can be read."""

    norms: tuple[Norm, ...] = NORMS
    access: Access = "white-box"
    nearest: bool = False  # it looks for the nearest adversarial point
    singly: bool = False  # it works on one image after another
    monotone: bool = True  # not a single step


# Not here: attacks on other than PyTorch classifiers or on probabilities, patches, those in L0 and
# those without a distance.
_KINDS: Mapping[str, _Kind] = {
    "AutoAttack": _Kind(),
    "AutoConjugateGradient": _Kind(),
    "AutoProjectedGradientDescent": _Kind(),
    "BasicIterativeMethod": _Kind(("Linf",)),
    "BoundaryAttack": _Kind(("L2",), "decision", nearest=True, singly=True),
    "CarliniL2Method": _Kind(("L2",), nearest=True),
    "CarliniLInfMethod": _Kind(("Linf",), nearest=True),
    "DeepFool": _Kind(("L2",), nearest=True),
    "ElasticNet": _Kind(("L1",), nearest=True),
    "FastGradientMethod": _Kind(monotone=False),
    "GeoDA": _Kind(NORMS, "decision", nearest=True, singly=True),
    "HopSkipJump": _Kind(("Linf", "L2"), "decision", nearest=True, singly=True),
    "MomentumIterativeMethod": _Kind(),
    "NewtonFool": _Kind(("L2",), nearest=True),
    "ProjectedGradientDescent": _Kind(),
    "ProjectedGradientDescentNumpy": _Kind(),
    "ProjectedGradientDescentPyTorch": _Kind(),
    "RescalingAutoConjugateGradient": _Kind(),
    "SignOPTAttack": _Kind(("L2",), "decision", nearest=True, singly=True),
    "SquareAttack": _Kind(("Linf", "L2"), "score"),
    "VirtualAdversarialMethod": _Kind(("L2",), monotone=False),
    "ZooAttack": _Kind(("L2",), "score", nearest=True),
}
_NUMBERS: Mapping[Norm, float] = {"Linf": math.inf, "L2": 2, "L1": 1}
_OURS = {"estimator", "classifier", "norm", "eps", "targeted", "verbose", "summary_writer"}
_OURS |= {"attacks", "estimator_orig", "adv_criterion", "loss", "mask", "decision_rule"}


@dataclass(frozen=True)
class ARTAttack(ThirdPartyAttack):
    """An attack of the toolbox. It takes and returns NumPy arrays, which is paid for in time.

    step_size: as a fraction of epsilon, in place of the toolbox's `eps_step`, which is a length. A
    length above epsilon, such as its default in a small ball, is cut to epsilon: it refuses longer.
    """

    step_size: float | None = field(default=None, kw_only=True)

    @property
    def title(self) -> str:
        """art:NAME."""
        return f"art:{self.name}"

    def perturb(self, stand_in: StandIn, task: Task) -> Tensor:
        """(b, C, H, W): the toolbox's answer."""
        goals = functional.one_hot(task.y, task.n_classes).float()
        made = self.made(stand_in, task).generate(task.x.cpu().numpy(), y=goals.cpu().numpy())
        return torch.from_numpy(made).to(task.x)

    def made(self, module: nn.Module, task: Task) -> Any:
        """The toolbox's object for a task."""
        kind = getattr(importlib.import_module("art.attacks.evasion"), self.name)
        taken = inspect.signature(kind).parameters
        ours: dict[str, Any] = {
            "norm": _NUMBERS[task.norm],
            "eps": task.epsilon,
            "targeted": task.targeted,
            "verbose": False,
            "batch_size": len(task.x),
        }
        chosen = {name: value for name, value in ours.items() if name in taken}
        chosen.update(self.parameters)
        if "eps_step" in taken:
            length = chosen.get("eps_step", taken["eps_step"].default)
            if self.step_size is not None:
                length = self.step_size * task.epsilon
            chosen["eps_step"] = min(length, task.epsilon)
        return kind(_classifier(module, task), **chosen)


class ART:
    """Attacks of the Adversarial Robustness Toolbox, under the names of their classes."""

    package: ClassVar[str] = "art"
    install: ClassVar[str] = "pip install adversarial-robustness-toolbox"

    @property
    def release(self) -> str:
        """The installed version."""
        return metadata.version("adversarial-robustness-toolbox")

    def names(self) -> Iterable[str]:
        """Those that we know of and that are there."""
        there = vars(_load())
        return (name for name in _KINDS if name in there)

    def factory(self, name: str) -> Callable[..., Any]:
        """Bind the hyper-parameters of one."""
        kind, known = getattr(_load(), name), _KINDS[name]
        taken = parameters_of(kind.__init__, without=_OURS)
        if "eps_step" in taken:
            taken["step_size"] = (float | None, None)

        def build(given: Mapping[str, Any]) -> ARTAttack:
            parameters = dict(given)
            step_size = parameters.pop("step_size", None)
            if step_size is not None and "eps_step" in parameters:
                raise BadParameter(f"art:{name}: give step_size or eps_step, not both")
            attack = ARTAttack(
                name,
                parameters,
                self.release,
                access=known.access,
                norms=known.norms,
                targetable="targeted" in inspect.signature(kind).parameters,
                minimum_norm=known.nearest,
                singly=known.singly,
                monotone=known.monotone,
                step_size=step_size,
            )
            _try(attack)
            return attack

        return factory(build, taken, f"{name} of the Adversarial Robustness Toolbox.")


def _load() -> Any:
    with quiet():
        return importlib.import_module("art.attacks.evasion")


def _classifier(module: nn.Module, task: Task) -> Any:
    with quiet():
        estimators = importlib.import_module("art.estimators.classification")
    return estimators.PyTorchClassifier(
        module,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(task.x.shape[1:]),
        nb_classes=task.n_classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if task.x.is_cuda else "cpu",
    )


def _try(attack: ARTAttack) -> None:
    """Let the toolbox look at the parameters before any work. Raises: what it raises."""
    x = torch.zeros(1, 1, 4, 4)
    y = torch.zeros(1, dtype=torch.int64)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with quiet():
        attack.made(module, Task(x, y, 0.1, attack.norms[0], False, 2, 0))
