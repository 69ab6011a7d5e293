"""The attacker's own networks, trained and together: one, or several whose outputs are averaged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ...bench.api.attack import Access, Differentiable, Loss, Problem

Combination = Literal["logits", "probabilities", "losses"]


@dataclass(frozen=True)
class Ensemble:
    """Networks as one, by the mean of their logits, of their probabilities, or of their losses.

    Source: Liu et al. 2017 (arXiv:1611.02770), section 4, and Dong et al. 2018 (arXiv:1710.06081),
    section 3.4, which compares the three.
    """

    networks: tuple[Differentiable, ...]
    combination: Combination = "logits"

    def logits(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K). Of the mean of losses: the mean logarithm of probabilities."""
        return self._together([one.logits(x) for one in self.networks])

    def gradient(self, x: Tensor, objective: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,): gradient at x of objective(logits), (B, K) -> (B,), and it."""
        if len(self.networks) == 1 or self.combination == "losses":
            answers = [one.gradient(x, objective) for one in self.networks]
            gradients = torch.stack([one.gradient for one in answers])
            return gradients.mean(dim=0), torch.stack([one.loss for one in answers]).mean(dim=0)
        with torch.enable_grad():
            outputs = [one.logits(x).detach().requires_grad_() for one in self.networks]
            loss = objective(self._together(outputs))
            slopes = torch.autograd.grad(loss.sum(), outputs)
        total = torch.zeros_like(x)
        for network, slope in zip(self.networks, slopes, strict=True):
            total = total + network.gradient(x, _along(slope)).gradient
        return total, loss.detach()

    def _together(self, outputs: list[Tensor]) -> Tensor:
        if len(outputs) == 1:
            return outputs[0]
        stacked = torch.stack(outputs)
        match self.combination:
            case "logits":
                return stacked.mean(dim=0)
            case "probabilities":
                return stacked.softmax(dim=2).mean(dim=0).clamp(min=1e-30).log()
            case "losses":
                return stacked.log_softmax(dim=2).mean(dim=0)


def _along(slope: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: (logits * slope).sum(dim=1)


@dataclass(frozen=True)
class TrainedProxy:
    """Proxy networks ready to give gradients; the victim is not asked.

    source: the Proxy that trained them. report: fidelity and the number of held-out images it was
    measured on.
    """

    monotone: ClassVar[bool] = False

    source: Any
    network: Ensemble = field(repr=False)
    report: Mapping[str, float]

    @property
    def access(self) -> Access:
        """What the proxy's training needed."""
        access: Access = self.source.access
        return access

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the gradient of the loss of the proxy at x."""
        return self.valued(problem, x, loss)[0]

    def valued(self, problem: Problem, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,): the gradient of the proxy's loss at x, and that loss."""
        return self.network.gradient(
            x, lambda logits: loss(logits, problem.y, targeted=problem.targeted)
        )
