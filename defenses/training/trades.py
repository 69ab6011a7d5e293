"""TRADES: accuracy on clean images traded against answers that do not change nearby."""

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bench.api.defense import Trained, Training
from .loop.adversarial_config import Stepping
from .loop.inner_attack import Adversary, against_clean, nearby
from .loop.objective import Batch, Forward, Objective, over_heads
from .loop.training_config import require


@dataclass(frozen=True, kw_only=True)
class TRADES(Stepping):
    """TRADES (Zhang et al. 2019, arXiv:1901.08573, algorithm 1).

    Cross-entropy on the clean images plus `beta` times the mean divergence KL(clean answer ||
    answer nearby) at points where PGD has made that divergence large, started from normal noise of
    0.001. Both answers are differentiated.

    beta: 1 / lambda in the paper, which has 1 and 6 on CIFAR-10.
    steps: of the attack. step_size: as a part of epsilon; 2.5 / steps unless given, where the paper
        has 0.007 of 0.031 in 10 steps, which is nearly the same.

    As in the authors' code, the attack meets the network in evaluation mode and the loss takes two
    passes in training mode: batch normalisation normalises clean and adversarial images apart, and
    its running statistics see one after the other (in their code the clean ones twice). In L2 the
    attack takes normalised steps, theirs descends with an optimiser. The paper says nothing of
    auxiliary classifiers: each has the same loss of its own answers, by its weight. Labels may be
    probabilities. Training accuracy is that on the attack's points.

    Raises: BadParameter for a value that cannot be used.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example, training_example
    >>> from quintain.defenses.training.trades import TRADES
    >>> _, images, labels = linear_example()
    >>> model, training = training_example(epsilon=0.03)
    >>> defense = TRADES(beta=6.0, epochs=20, augmentation="none")
    >>> trained = defense.fit(model, training)
    >>> evaluate(trained.model, images, labels, epsilons=[0.025]).curve["robust_accuracy"].tolist()
    [0.8]
    """

    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("beta", self.beta, 0.0 <= self.beta < float("inf"), "0 or positive, and finite")

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train the model in place.

        Raises: BadParameter without an epsilon; CellError when training diverges.
        """
        norm, epsilon = self.threat(training)
        attack = Adversary(
            norm, epsilon, self.steps, self.effective_step_size, nearby, against_clean
        )
        return self.harden(model, training, attack, self.loss)

    def loss(self, forward: Forward, batch: Batch, x_adv: Tensor) -> Objective:
        """Equation 5 of the paper, summed over the heads of the network by their weights."""
        clean, adversarial = forward(batch.x), forward(x_adv)
        loss = over_heads(lambda a, b: self._of(a, b, batch.y), clean, adversarial)
        return Objective(loss, adversarial[0].logits)

    def _of(self, clean: Tensor, adversarial: Tensor, y: Tensor) -> Tensor:
        """Logits (B, K), (B, K), labels -> scalar."""
        divergence = F.kl_div(
            adversarial.log_softmax(dim=1),
            clean.log_softmax(dim=1),
            reduction="batchmean",
            log_target=True,
        )
        natural = F.cross_entropy(clean, y, label_smoothing=self.label_smoothing)
        return natural + self.beta * divergence
