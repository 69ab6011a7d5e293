"""The hyper-parameters that every adversarially trained defense shares, and how it is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ....bench.api.defense import Trained, Training
from ....bench.api.errors import BadParameter, check_choice
from ....bench.api.threat import NORMS, Epsilon, Norm, check_radii
from ..weight_perturbation import WeightPerturbation
from .adversarial_objective import AdversarialLoss, Attacker, Hardening
from .inner_attack import Adversary
from .loop import train
from .training_config import Recipe, at_least, positive, require

PGD_REACH = 2.5  # epsilons that all steps together could cover
FGSM_REACH = 1.25


@dataclass(frozen=True, kw_only=True)
class Threatened(Recipe):
    """Training against an adversary, validated by PGD, and ended by catastrophic overfitting.

    The weights of the epoch with the best robust validation accuracy are kept (arXiv:2002.11569),
    and training ends when catastrophic overfitting is seen, with a flag.

    norm, epsilon: the threat, by default the one that `Training` names. "8/255" is accepted.
    warmup_epochs: epsilon grows from 0 in a straight line over the first epochs, which small
        networks need to begin learning at all; the papers do not do this.
    validation_steps: steps of the PGD that measures robust validation accuracy, at full epsilon.
    weight_perturbation: gamma of adversarial weight perturbation (arXiv:2004.05884): each batch
        moves the weights by the gradient at worse ones, this far from them in proportion to each
        layer's norm; 0 for none. The paper has 0.01, and 0.005 for TRADES.
    weight_perturbation_warmup: first epochs without it.

    Raises: BadParameter for a value that cannot be used.
    """

    norm: Norm | None = None
    epsilon: float | str | None = None
    warmup_epochs: int = 0
    validation_steps: int = 10
    weight_perturbation: float = 0.0
    weight_perturbation_warmup: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("validation_steps", self.validation_steps, 1)
        if self.norm is not None:
            check_choice("norm", self.norm, NORMS)
        if self.epsilon is not None:
            radius(self.epsilon, self.norm)
        size = self.weight_perturbation
        require("weight_perturbation", size, 0.0 <= size < 1.0, "at least 0 and below 1")
        for name in ("warmup_epochs", "weight_perturbation_warmup"):
            value = getattr(self, name)
            at_least(name, value, 0)
            if value >= self.epochs:
                raise BadParameter(f"{name} = {value} must be below epochs = {self.epochs}")

    def threat(self, training: Training) -> tuple[Norm, float]:
        """Norm and epsilon to train against.

        Raises: BadParameter without an epsilon, or for one beyond every image.
        """
        epsilon = training.epsilon if self.epsilon is None else self.epsilon
        norm = self.norm or training.norm
        return norm, radius(epsilon, norm, training.data.shape)

    def check(self, training: Training) -> None:
        """Refuse to train without an epsilon, or with one beyond every image.

        Raises: BadParameter.
        """
        self.threat(training)

    def harden(
        self,
        model: nn.Module,
        training: Training,
        attack: Attacker,
        loss: AdversarialLoss,
        replays: int = 1,
    ) -> Trained:
        """Train the model in place on what the attack finds, each batch `replays` times.

        Raises: BadParameter without an epsilon; CellError when training diverges.
        """
        norm, epsilon = self.threat(training)
        steps = self.validation_steps
        method = Hardening(
            attack,
            loss,
            examiner=Adversary(norm, epsilon, steps, PGD_REACH / steps),
            small_validator=Adversary(norm, epsilon, 1, FGSM_REACH),
            weights=WeightPerturbation(self.weight_perturbation, self.weight_perturbation_warmup),
            warmup_epochs=self.warmup_epochs,
            n_classes=training.data.n_classes,
            replays=replays,
        )
        return train(model, training, self, method)


@dataclass(frozen=True, kw_only=True)
class Stepping(Threatened):
    """Training against an adversary that takes several steps for each batch.

    steps: of the attack trained on. step_size: as a part of epsilon; 2.5 / steps unless given.

    Raises: BadParameter for a value that cannot be used.
    """

    steps: int = 10
    step_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("steps", self.steps, 1)
        positive("step_size", self.step_size)

    @property
    def effective_step_size(self) -> float:
        """The length of a step as a part of epsilon."""
        return self.step_size or PGD_REACH / self.steps


def radius(
    written: float | str | None,
    norm: Norm | None,
    shape: Sequence[int] | None = None,
    method: str = "adversarial training",
) -> float:
    """Read an epsilon. shape: (C, H, W) of the images, where it is known already.

    Raises: BadParameter when it is missing, no radius, or beyond every image in the norm.
    """
    if written is None:
        raise BadParameter(
            f'{method} needs an epsilon, such as epsilon = "8/255", '
            "here or in the threat that it trains against"
        )
    try:
        epsilon = Epsilon.parse(written)
        if norm is not None:
            check_radii([epsilon], norm, shape)
        return epsilon.value
    except ValueError as error:
        raise BadParameter(str(error)) from None
