"""How the adversarially trained defenses train and are validated: an attack, and a loss on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from ..weight_perturbation import WeightPerturbation
from .catastrophic_overfitting import catastrophic_overfitting
from .inner_attack import Adversary
from .objective import Batch, Forward, History, Objective


class Attacker(Protocol):
    """Finds the inputs to train on."""

    def perturb(self, model: nn.Module, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """(B, C, H, W): points of the ball of `scale` times epsilon around the batch's images."""


@runtime_checkable
class Remembering(Protocol):
    """An attacker that carries something from batch to batch."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """What it carries."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""


class AdversarialLoss(Protocol):
    """What to descend, from passes through the network that the loss makes itself."""

    def __call__(self, forward: Forward, batch: Batch, x_adv: Tensor) -> Objective:
        """x_adv: (B, C, H, W), what the attacker found. The logits returned are those on it."""


@dataclass(frozen=True)
class Hardening:
    """Train on what an attack finds; validate on what a longer PGD finds, and one step of FGSM.

    warmup_epochs: epsilon grows from 0 in a straight line over them.
    replays: how many times each batch is given.
    """

    attack: Attacker
    loss: AdversarialLoss
    examiner: Adversary
    small_validator: Adversary
    weights: WeightPerturbation
    warmup_epochs: int
    n_classes: int
    replays: int = 1

    def objective(self, model: nn.Module, batch: Batch) -> Objective:
        """The loss on what the attack finds, at the worst weights nearby if they are perturbed."""
        scale = min(1.0, batch.epoch / self.warmup_epochs) if self.warmup_epochs else 1.0
        x_adv = self.attack.perturb(model, batch, scale=scale)
        return self.weights.worst(
            model, batch.epoch, lambda forward: self.loss(forward, batch, x_adv)
        )

    def adversarial(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """What PGD finds, called "robust", and what one step of FGSM finds."""
        return {
            "robust": self.examiner.perturb(model, batch),
            "fgsm": self.small_validator.perturb(model, batch),
        }

    def alarm(self, history: History) -> str | None:
        """Catastrophic overfitting, if it is seen."""
        return catastrophic_overfitting(history, n_classes=self.n_classes)

    def state_dict(self) -> Mapping[str, Tensor]:
        """What the attack carries from batch to batch."""
        return self.attack.state_dict() if isinstance(self.attack, Remembering) else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with what the attack carried."""
        if isinstance(self.attack, Remembering):
            self.attack.load_state_dict(state)
