"""Which class a targeted attack is to reach on each example, by rule."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..api.rng import Draws
from .targets import NO_TARGET, Targets, check_class


def choose_targets(
    targets: Targets,
    labels: Tensor,
    n_classes: int,
    seed: int,
    examples: Tensor,
    logits: Callable[[], Tensor],
) -> Tensor:
    """(N,) int64: a class for each example, never its label; NO_TARGET where there is none.

    "random" (Carlini & Wagner 2017, arXiv:1608.04644, section V) draws from the other classes by
    the seed and the example alone. "least-likely" (Kurakin et al. 2017, arXiv:1607.02533, section
    2.3) is the class, other than the label, that the attacked model holds for the least likely on
    the clean image. "next" is the label plus 1, modulo the number of classes.

    labels, examples: (N,) int64. logits: of the clean images, (N, K), asked for when needed.

    Raises: BadParameter for a class that there is not.
    """
    check_class(targets, n_classes)
    if isinstance(targets, int):
        return torch.where(labels == targets, NO_TARGET, targets)
    if targets == "next":
        return (labels + 1) % n_classes
    if targets == "least-likely":
        others = logits().double().scatter(1, labels[:, None], torch.inf)
        return others.argmin(dim=1)
    still = torch.zeros_like(examples)
    words = Draws(seed, examples, still, still).words(1, "target")[:, 0]
    drawn = words % (n_classes - 1)
    return drawn + (drawn >= labels).long()
