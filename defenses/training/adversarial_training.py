"""Adversarial training: the network learns from the worst inputs near each image."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from ...bench.api.defense import Trained, Training
from ...bench.api.errors import BadParameter, check_choice
from .loop.adversarial_config import FGSM_REACH, PGD_REACH, Threatened
from .loop.inner_attack import Adversary
from .loop.objective import Batch, Forward, Objective, classified
from .loop.training_config import at_least, positive

AttackName = Literal["pgd", "fgsm"]

_STEPS: dict[AttackName, int] = {"pgd": 7, "fgsm": 1}
_REACH: dict[AttackName, float] = {"pgd": PGD_REACH, "fgsm": FGSM_REACH}


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Threatened):
    """Adversarial training with PGD (arXiv:1706.06083), or FGSM with random start (2001.03994).

    Each batch is replaced by points of the ball around its images where the loss is high.

    method: the attack trained on. steps: 7 for "pgd" unless given, 1 for "fgsm".
    step_size: as a part of epsilon; 2.5 / steps for "pgd", 1.25 for "fgsm" unless given.

    The adversary meets the network in evaluation mode, see `Adversary`. Wong et al. clip the start
    of FGSM and what it reaches to [0, 1] as here.

    Raises: BadParameter for a value that cannot be used.

    Robust accuracy before and after:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example, training_example
    >>> from quintain.defenses.training.adversarial_training import AdversarialTraining
    >>> _, images, labels = linear_example()
    >>> model, training = training_example(epsilon=0.03)
    >>> evaluate(model, images, labels, epsilons=[0.025]).curve["robust_accuracy"].tolist()
    [0.3]
    >>> defense = AdversarialTraining(epochs=20, augmentation="none")
    >>> trained = defense.fit(model, training)
    >>> evaluate(trained.model, images, labels, epsilons=[0.025]).curve["robust_accuracy"].tolist()
    [0.8]
    """

    method: AttackName = "pgd"
    steps: int | None = None
    step_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, get_args(AttackName))
        at_least("steps", self.steps, 1)
        positive("step_size", self.step_size)
        if self.method == "fgsm" and self.steps not in (None, 1):
            raise BadParameter(f"steps = {self.steps} with method 'fgsm', which takes 1; use 'pgd'")

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train the model in place.

        Raises: BadParameter without an epsilon; CellError when training diverges.
        """
        norm, epsilon = self.threat(training)
        steps = self.steps or _STEPS[self.method]
        size = self.step_size or _REACH[self.method] / steps
        return self.harden(model, training, Adversary(norm, epsilon, steps, size), self.loss)

    def loss(self, forward: Forward, batch: Batch, x_adv: Tensor) -> Objective:
        """Cross-entropy on what the attack found."""
        return classified(forward(x_adv), batch.y, label_smoothing=self.label_smoothing)
