"""PGD with the gradients that randomised, non-differentiable and saturated models call for."""

from ..bench.api.attack import GradientSource, Loss
from .gradients.bpda import BPDA
from .gradients.eot import EOT
from .gradients.smoothed import Smoothed
from .parts.losses import CrossEntropy, Margin
from .white_box.pgd import PGD


def pgd_eot(
    *,
    steps: int = 40,
    step_size: float | None = None,
    random_start: bool = True,
    loss: Loss = CrossEntropy(),
    gradient: GradientSource = EOT(),
) -> PGD:
    """PGD on the expected loss of a randomised model.

    Source: Athalye et al. 2018 (arXiv:1707.07397).

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd-eot", "gradient": {"name": "eot", "samples": 5}}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """
    return PGD(steps, step_size, random_start, loss, gradient)


def pgd_bpda(
    *,
    steps: int = 40,
    step_size: float | None = None,
    random_start: bool = True,
    loss: Loss = CrossEntropy(),
    gradient: GradientSource = BPDA(),
) -> PGD:
    """PGD through the surrogates of a model's layers that have no gradient.

    Source: Athalye et al. 2018 (arXiv:1802.00420), section 4.1.

    A layer says itself that it has no gradient:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> import torch
    >>> class Rounded(torch.nn.Module):
    ...     differentiable = False
    ...
    ...     def forward(self, x):
    ...         return (x * 255).round() / 255
    >>> rounded = torch.nn.Sequential(Rounded(), model)
    >>> result = evaluate(rounded, images, labels, "pgd-bpda", epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """
    return PGD(steps, step_size, random_start, loss, gradient)


def pgd_smoothed(
    *,
    steps: int = 300,
    step_size: float | None = None,
    random_start: bool = True,
    loss: Loss = Margin(),
    gradient: GradientSource = Smoothed(),
) -> PGD:
    """PGD with falling steps on a smoothed network that is sharpened as it goes.

    Source: our own; see the gradient source `smoothed`.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd-smoothed", "steps": 50}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """
    return PGD(steps, step_size, random_start, loss, gradient, schedule="linear")
