"""The fast gradient sign method."""

from ...bench.api.attack import GradientSource, Loss
from ..gradients.autograd import Autograd
from ..parts.losses import CrossEntropy
from .pgd import PGD


def fgsm(
    *,
    random_start: bool = False,
    loss: Loss = CrossEntropy(),
    gradient: GradientSource = Autograd(),
) -> PGD:
    """Fast gradient sign method: one step of length epsilon; in L2 and L1 its steepest step.

    Source: Goodfellow et al. 2015 (arXiv:1412.6572), equation in section 4.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(model, images, labels, "fgsm", epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """
    return PGD(steps=1, step_size=1.0, random_start=random_start, loss=loss, gradient=gradient)
