"""Losses: what an attack makes grow, one value for each example."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the label; of the target class with its sign turned when targeted."""

    def __call__(self, logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
        """(B, K), (B,) -> (B,)."""
        loss = functional.cross_entropy(logits, y, reduction="none")
        return -loss if targeted else loss


@dataclass(frozen=True)
class Margin:
    """How far the best wrong logit is above the label's; the target's above the best other.

    Positive exactly when the attack has succeeded. Unlike cross-entropy its gradient does not
    vanish when the model is sure of itself. Source: Carlini & Wagner 2017 (arXiv:1608.04644),
    objective f6, without its floor.
    """

    def __call__(self, logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
        """(B, K), (B,) -> (B,)."""
        own = logits.gather(1, y[:, None])[:, 0]
        best_other = logits.scatter(1, y[:, None], float("-inf")).amax(dim=1)
        return own - best_other if targeted else best_other - own
