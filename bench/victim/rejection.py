"""Models with a reject option: what their last logit says, and what an attacker makes of it.

A module with an attribute `rejects = True` returns logits (N, K + 1), the last for "rejected": an
input is rejected where that logit is above those of all K classes. Nothing here knows of networks.
"""

import torch
from torch import Tensor, nn


def merged(logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
    """Fold the rejection into the class that it helps against the attack: (N, K + 1) -> (N, K).

    To be rejected is no success, so the label's logit becomes the larger of its own and the
    rejection's; when y is the class to reach, that of the best other class does. The prediction is
    then what the attack wants exactly where the whole model's is, and any loss of the K logits is
    one of classifier and detector together, whose gradient is that of whichever stands in the way.
    """
    classes, rejection = logits[:, :-1], logits[:, -1]
    if targeted:
        helped = classes.scatter(1, y[:, None], -torch.inf).argmax(dim=1, keepdim=True)
    else:
        helped = y[:, None]
    own = classes.gather(1, helped)[:, 0]
    # A rejection that only equals the best class is none, and must not win by a tie either.
    tie = rejection == classes.amax(dim=1)
    hindering = torch.where(tie, own, torch.maximum(own, rejection))
    return classes.scatter(1, helped, hindering[:, None])


def bare(logits: Tensor) -> Tensor:
    """(N, K + 1) -> (N, K): what the classifier alone says."""
    return logits[:, :-1]


def rejection_margin(logits: Tensor) -> Tensor:
    """(N, K + 1) -> (N,): how far the rejection is above the best class; positive where rejected.

    It grows with the detector's score, and so ranks inputs as that does.
    """
    return logits[:, -1] - logits[:, :-1].amax(dim=1)


class Classifier(nn.Module):
    """The classifier within a module with a reject option: the same without its last logit."""

    rejects = False

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        return bare(self.module(x))
