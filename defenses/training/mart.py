"""MART: adversarial training that minds most the images which are misclassified when clean."""

import math
from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bench.api.defense import Trained, Training
from ...bench.api.errors import BadData, BadParameter
from .loop.adversarial_config import Stepping
from .loop.inner_attack import Adversary, nearby
from .loop.objective import Batch, Forward, Objective, over_heads
from .loop.training_config import require


@dataclass(frozen=True, kw_only=True)
class MART(Stepping):
    """MART, adversarial training that minds misclassified images most (Wang et al., ICLR 2020).

    "Improving adversarial robustness requires revisiting misclassified examples", equation 11. The
    mean, over the images, of the boosted cross-entropy at what PGD finds, -log p'(y) -
    log(1 - max p'(k), k not y), plus `beta` times KL(clean answer || answer at it), weighted by
    the probability that the clean image is misclassified, 1 - p(y).

    beta: lambda in the paper, which recommends 5. steps: of the attack. step_size: as a part of
        epsilon; 2.5 / steps unless given, where the paper has a quarter in 10 steps.

    As in the authors' code, the attack starts from normal noise of 0.001 and meets the network in
    evaluation mode, the loss takes two passes in training mode, clean and adversarial apart, and
    the weights are differentiated as well. Their small constants inside the logarithms are left
    out: here log(1 - p) is found from the logits, without rounding to log 0. The paper says nothing
    of auxiliary classifiers: each has the same loss of its own answers, by its weight. The loss
    needs a class for each image: no probabilities, and no label smoothing.

    Raises: BadParameter for a value that cannot be used.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example, training_example
    >>> from quintain.defenses.training.mart import MART
    >>> _, images, labels = linear_example()
    >>> model, training = training_example(epsilon=0.03)
    >>> defense = MART(epochs=20, augmentation="none")
    >>> trained = defense.fit(model, training)
    >>> evaluate(trained.model, images, labels, epsilons=[0.025]).curve["robust_accuracy"].tolist()
    [0.8]
    """

    beta: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("beta", self.beta, 0.0 <= self.beta < math.inf, "0 or positive, and finite")
        if self.label_smoothing:
            raise BadParameter(
                f"label_smoothing = {self.label_smoothing} must be 0: mart needs a class for each "
                "image"
            )

    def check(self, training: Training) -> None:
        """Refuse what cannot be trained with or on. Raises: BadParameter; BadData."""
        super().check(training)
        if training.data.labels.dim() != 1:
            raise BadData("mart needs a class for each image: it cannot train on probabilities")

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train the model in place.

        Raises: BadParameter without an epsilon; BadData when labels are probabilities; CellError
        when training diverges.
        """
        self.check(training)
        norm, epsilon = self.threat(training)
        attack = Adversary(norm, epsilon, self.steps, self.effective_step_size, nearby)
        return self.harden(model, training, attack, self.loss)

    def loss(self, forward: Forward, batch: Batch, x_adv: Tensor) -> Objective:
        """Equation 11 of the paper, summed over the heads of the network by their weights."""
        clean, adversarial = forward(batch.x), forward(x_adv)
        loss = over_heads(lambda a, b: self._of(a, b, batch.y), clean, adversarial)
        return Objective(loss, adversarial[0].logits)

    def _of(self, clean: Tensor, adversarial: Tensor, y: Tensor) -> Tensor:
        """Logits (B, K), (B, K), classes (B,) -> scalar."""
        before, after = clean.log_softmax(dim=1), adversarial.log_softmax(dim=1)
        divergence = F.kl_div(after, before, reduction="none", log_target=True).sum(dim=1)
        misclassified = 1.0 - before.gather(1, y[:, None])[:, 0].exp()
        boosted = F.nll_loss(after, y) - _log_others(adversarial, _strongest_other(adversarial, y))
        return boosted + self.beta * (divergence * misclassified).mean()


def _strongest_other(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) int64: the most probable class but y."""
    return logits.detach().scatter(1, y[:, None], -math.inf).argmax(dim=1)


def _log_others(logits: Tensor, k: Tensor) -> Tensor:
    """Mean of log(1 - p(k)), from the logits of all classes but k."""
    others = logits.scatter(1, k[:, None], -math.inf)
    return (others.logsumexp(dim=1) - logits.logsumexp(dim=1)).mean()
