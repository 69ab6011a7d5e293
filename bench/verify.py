"""The second look: nothing that an attack says is believed."""

import torch
from torch import Tensor

from .network import Network
from .threat import Norm, measure
from .victim import fooled


def verify(
    network: Network,
    clean: Tensor,
    x_adv: Tensor,
    goals: Tensor,
    epsilon: Tensor,
    norm: Norm,
    *,
    targeted: bool,
    examples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Which adversarial examples hold when the model is asked again, (n,) bool; their norms, (n,).

    Asked in float32, without autograd, among other neighbours than in the attack; each must be
    finite, in [0, 1], and within epsilon (n,) of its clean image in float64 with zero tolerance.

    clean, x_adv: (n, C, H, W). goals: (n,), the labels to leave or the classes to reach. examples:
    (n,) int64, what the votes of a stochastic model hang on; by default the positions.
    """
    inside = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(dim=1)  # false for NaN
    distance = measure(x_adv.double() - clean.double(), norm)
    inside &= distance <= epsilon.double()
    examples = torch.arange(len(x_adv)) if examples is None else examples
    order = torch.arange(len(x_adv)).flip(0)
    asked = torch.where(inside.reshape(-1, *[1] * (x_adv.dim() - 1)), x_adv, clean).float()[order]
    wrong = torch.zeros(len(x_adv), dtype=torch.bool)
    size = 3 * network.batch_size // 2 + 1  # never the attack's own batches
    for rows, images in zip(order.split(size), asked.split(size), strict=True):
        logits = network.verdict(images, examples[rows]).cpu()
        wrong[rows] = fooled(logits, goals[rows], targeted=targeted)
    return inside & wrong, distance
