"""Gradients, points and logits that are not finite: never robust, and the right one is blamed."""

import pytest
import torch
from torch import nn

from quintain.attacks.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.errors import CellError


class Spoilt(nn.Module):
    """Two classes parted by a plane, with a term that is zero and whose gradient is not finite.

    where: (B, C, H, W) -> (B,) bool, the inputs that have the term.
    """

    def __init__(self, inner, where=lambda x: torch.ones(len(x), dtype=torch.bool)):
        super().__init__()
        self.inner = inner
        self.where = where

    def forward(self, x):
        logits = self.inner(x)
        term = 0 * (x - x.detach()).square().flatten(1).sum(1, keepdim=True).sqrt()
        return torch.where(self.where(x.detach())[:, None], logits + term, logits)


def first(linear, count):
    return linear.images[:count], linear.labels[:count]


def attacked(module, linear, attack, count=12, epsilon=None, **named):
    epsilon = linear.distances["Linf"][:count].max() * 1.5 if epsilon is None else epsilon
    norm = named.pop("norm", "Linf")
    x, y = first(linear, count)
    return evaluate(module, x, y, attack, norm=norm, epsilons=[epsilon], **named)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd", "strongest"])
def test_examples_without_a_finite_gradient_are_never_robust(linear, attack):
    spec = attack if attack in ("fgsm", "strongest") else {"name": attack, "steps": 5}
    try:
        robust = attacked(Spoilt(linear.module), linear, spec).curve["robust_accuracy"][0]
    except CellError as error:
        assert "the model's gradient is not finite for 12 of 12 examples" in str(error)
    else:
        assert attack == "strongest" and robust == 0.0
