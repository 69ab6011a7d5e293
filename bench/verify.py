"""The second look: nothing that an attack says is believed."""

from typing import NamedTuple

import torch
from torch import Tensor

from .network import Network
from .rejection import reading, surplus
from .threat import Norm, measure
from .verdicts import SECOND, verdict
from .victim import fooled


class Verdicts(NamedTuple):
    """What came of asking again about n points.

    holds: (n,) bool, whether they are adversarial examples. distance: (n,) float64, their norms.
    scores: (n,) float64, how far a network that may reject is from doing so, positive where it
    does; NaN where the classifier within it is not fooled either, or the point is not in the ball.
    """

    holds: Tensor
    distance: Tensor
    scores: Tensor


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
) -> Verdicts:
    """Which adversarial examples hold when the model is asked again.

    Asked in float32, without autograd, among other neighbours than in the attack, and of a
    stochastic network before its second jury; each must be finite, in [0, 1], and within epsilon
    (n,) of its clean image in float64 with zero tolerance.
    To be rejected, by a network that may do so, is not to be misclassified.

    clean, x_adv: (n, C, H, W). goals: (n,), the labels to leave or the classes to reach. examples:
    (n,) int64, what the votes of a stochastic model hang on; by default the positions.
    """
    read = reading(rejecting=network.rejects, oblivious=False, targeted=targeted)
    inside = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(dim=1)  # false for NaN
    distance = measure(x_adv.double() - clean.double(), norm)
    inside &= distance <= epsilon.double()
    examples = torch.arange(len(x_adv)) if examples is None else examples
    order = torch.arange(len(x_adv)).flip(0)
    asked = torch.where(inside.reshape(-1, *[1] * (x_adv.dim() - 1)), x_adv, clean).float()[order]
    wrong = torch.zeros(len(x_adv), dtype=torch.bool)
    scores = torch.full_like(distance, torch.nan)
    size = 3 * network.batch_size // 2 + 1  # never the attack's own batches
    for rows, images in zip(order.split(size), asked.split(size), strict=True):
        found = verdict(network, images, examples[rows], SECOND)
        whole, classifier = found.whole.cpu(), found.classifier.cpu()
        wrong[rows] = fooled(read(whole, goals[rows]), goals[rows], targeted=targeted)
        if network.rejects:
            let_down = inside[rows] & fooled(classifier, goals[rows], targeted=targeted)
            scores[rows] = surplus(whole).double().masked_fill(~let_down, torch.nan)
    return Verdicts(inside & wrong, distance, scores)
