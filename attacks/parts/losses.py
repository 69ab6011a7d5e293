"""Losses: what an attack makes grow, one value for each example.

A class whose logit is -inf can never be predicted: losses leave it out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_TINY = 1e-12


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the label; of the target class with its sign turned when targeted.

    >>> import torch
    >>> from quintain.attacks.parts.losses import CrossEntropy
    >>> logits, y = torch.tensor([[2.0, 0.5, -1.0]]), torch.tensor([1])
    >>> CrossEntropy()(logits, y, targeted=False).round(decimals=2)
    tensor([1.7400])
    """

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

    >>> import torch
    >>> from quintain.attacks.parts.losses import Margin
    >>> logits, y = torch.tensor([[2.0, 0.5, -1.0], [2.0, 2.5, 0.0]]), torch.tensor([0, 0])
    >>> Margin()(logits, y, targeted=False)
    tensor([-1.5000,  0.5000])
    """

    def __call__(self, logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
        """(B, K), (B,) -> (B,)."""
        own = _pick(logits, y)
        best_other = logits.scatter(1, y[:, None], float("-inf")).amax(dim=1)
        return own - best_other if targeted else best_other - own


@dataclass(frozen=True)
class DLR:
    """Difference of logits ratio: the margin over the distance of the first logit to the third.

    Neither a shift nor a scale of the logits changes it, so a model that is too sure of itself
    hides nothing. Source: Croce & Hein 2020 (arXiv:2003.01690), equation 6. With a target class it
    is that class's margin over the best other one. With two classes there is no third logit, and
    the loss is the plain margin.

    >>> import torch
    >>> from quintain.attacks.parts.losses import DLR
    >>> logits, y = torch.tensor([[3.0, 2.0, -1.0]]), torch.tensor([0])
    >>> DLR()(logits, y, targeted=False), DLR()(100.0 * logits, y, targeted=False)
    (tensor([-0.2500]), tensor([-0.2500]))
    """

    def __call__(self, logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
        """(B, K), (B,) -> (B,)."""
        margin = Margin()(logits, y, targeted=targeted)
        if logits.shape[1] < 3:
            return margin
        top = logits.topk(3, dim=1).values
        return margin / (_ratio(top[:, 0], top[:, 2:]) + _TINY)


@dataclass(frozen=True, eq=False)
class Towards:
    """Difference of logits ratio of one wrong class for each example, of an attack's own choice.

    Source: Croce & Hein 2020 (arXiv:2003.01690), equation 7: (z_target - z_y) over the distance of
    the first logit to the mean of the third and the fourth. With three classes the third stands for
    both; with two the loss is the plain difference.

    target: (B,), classes.
    """

    target: Tensor

    def __call__(self, logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
        """(B, K), (B,) -> (B,). targeted: then y is the class to reach, and it is DLR."""
        if targeted:
            return DLR()(logits, y, targeted=True)
        margin = _pick(logits, self.target) - _pick(logits, y)
        classes = logits.shape[1]
        if classes < 3:
            return margin
        top = logits.topk(min(4, classes), dim=1).values
        return margin / (_ratio(top[:, 0], top[:, 2:]) + _TINY)


@dataclass(frozen=True)
class SummedHinge:
    """Minus the sum of the label's margins over every class that it still leads.

    All classes pull at once, so it goes where the best single one does not lead. Targeted: minus
    the sum of the leads of all others over the target. Source: the loss that verification tools
    attack with, after Carlini & Wagner 2017 (arXiv:1608.04644), objective f6, summed over classes.

    >>> import torch
    >>> from quintain.attacks.parts.losses import SummedHinge
    >>> logits, y = torch.tensor([[3.0, 2.0, -1.0]]), torch.tensor([0])
    >>> SummedHinge()(logits, y, targeted=False)
    tensor([-5.])
    """

    def __call__(self, logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
        """(B, K), (B,) -> (B,)."""
        own = _pick(logits, y)[:, None]
        margins = logits - own if targeted else own - logits
        margins = torch.where(logits > -torch.inf, margins, 0.0)
        return -margins.clamp(min=0.0).sum(dim=1)


def _ratio(first: Tensor, others: Tensor) -> Tensor:
    """(B,): how far a logit is above the mean of others (B, n) that are not -inf; 1 without one."""
    there = others > -torch.inf
    count = there.sum(dim=1)
    mean = torch.where(there, others, 0.0).sum(dim=1) / count.clamp(min=1)
    return torch.where(count > 0, first - mean, 1.0)


def _pick(logits: Tensor, classes: Tensor) -> Tensor:
    """(B,): the logit of one class for each row."""
    return logits.gather(1, classes[:, None])[:, 0]
