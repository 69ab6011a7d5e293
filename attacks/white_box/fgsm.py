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
    """
    return PGD(steps=1, step_size=1.0, random_start=random_start, loss=loss, gradient=gradient)
