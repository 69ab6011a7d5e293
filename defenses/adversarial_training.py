"""Adversarial training: the network learns from the worst inputs near each image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from ..bench.errors import BadParameter
from ..bench.protocols import Trained, Training
from ..bench.threat import NORMS, Epsilon, Norm
from .adversary import Adversary
from .method import Batch, History, Objective, classification
from .overfitting import catastrophic_overfitting
from .recipe import Recipe, at_least, one_of, positive
from .training import train

AttackName = Literal["pgd", "fgsm"]

_STEPS: dict[AttackName, int] = {"pgd": 7, "fgsm": 1}
_REACH: dict[AttackName, float] = {"pgd": 2.5, "fgsm": 1.25}  # epsilons that all steps could cover


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Recipe):
    """Adversarial training with PGD (arXiv:1706.06083), or FGSM with random start (2001.03994).

    Each batch is replaced by points of the ball around its images where the loss is high. The
    weights of the epoch with the best robust validation accuracy are kept (arXiv:2002.11569), and
    training ends when catastrophic overfitting is seen, with a flag.

    method: the attack trained on. steps: 7 for "pgd" unless given, 1 for "fgsm".
    step_size: as a part of epsilon; 2.5 / steps for "pgd", 1.25 for "fgsm" unless given.
    norm, epsilon: the threat, by default the one that `Training` names. "8/255" is accepted.
    warmup_epochs: epsilon grows from 0 in a straight line over the first epochs, which small
        networks need to begin learning at all; neither paper does this.
    validation_steps: steps of the PGD that measures robust validation accuracy, at full epsilon.

    The adversary meets the network in evaluation mode, see `Adversary`.

    Raises: BadParameter for a value that cannot be used.
    """

    method: AttackName = "pgd"
    steps: int | None = None
    step_size: float | None = None
    norm: Norm | None = None
    epsilon: float | str | None = None
    warmup_epochs: int = 0
    validation_steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("method", self.method, get_args(AttackName))
        at_least("steps", self.steps, 1)
        at_least("validation_steps", self.validation_steps, 1)
        at_least("warmup_epochs", self.warmup_epochs, 0)
        positive("step_size", self.step_size)
        if self.norm is not None:
            one_of("norm", self.norm, NORMS)
        if self.epsilon is not None:
            _radius(self.epsilon)
        if self.method == "fgsm" and self.steps not in (None, 1):
            raise BadParameter(f"steps = {self.steps} with method 'fgsm', which takes 1; use 'pgd'")
        if self.warmup_epochs >= self.epochs:
            raise BadParameter(
                f"warmup_epochs = {self.warmup_epochs} must be below epochs = {self.epochs}"
            )

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train the model in place.

        Raises: BadParameter without an epsilon; CellError when training diverges.
        """
        norm = self.norm or training.norm
        epsilon = _radius(training.epsilon if self.epsilon is None else self.epsilon)
        steps = self.steps or _STEPS[self.method]
        size = self.step_size or _REACH[self.method] / steps
        method = _Adversarial(
            attack=Adversary(norm, epsilon, steps, size),
            examiner=Adversary(
                norm, epsilon, self.validation_steps, _REACH["pgd"] / self.validation_steps
            ),
            quick_examiner=Adversary(norm, epsilon, _STEPS["fgsm"], _REACH["fgsm"]),
            warmup_epochs=self.warmup_epochs,
            label_smoothing=self.label_smoothing,
            n_classes=training.data.n_classes,
        )
        return train(model, training, self, method)


@dataclass(frozen=True)
class _Adversarial:
    """Train on what the attack finds; validate on what a longer PGD finds, and one step of FGSM."""

    attack: Adversary
    examiner: Adversary
    quick_examiner: Adversary
    warmup_epochs: int
    label_smoothing: float
    n_classes: int

    def objective(self, model: nn.Module, batch: Batch) -> Objective:
        scale = min(1.0, batch.epoch / self.warmup_epochs) if self.warmup_epochs else 1.0
        x_adv = self.attack.perturb(model, batch, scale=scale)
        return classification(model, x_adv, batch.y, label_smoothing=self.label_smoothing)

    def adversarial(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return {
            "robust": self.examiner.perturb(model, batch),
            "fgsm": self.quick_examiner.perturb(model, batch),
        }

    def alarm(self, history: History) -> str | None:
        return catastrophic_overfitting(history, n_classes=self.n_classes)


def _radius(written: float | str | None) -> float:
    if written is None:
        raise BadParameter(
            'adversarial-training needs an epsilon, such as epsilon = "8/255", '
            "here or in the threat that it trains against"
        )
    try:
        return Epsilon.parse(written).value
    except ValueError as error:
        raise BadParameter(str(error)) from None
