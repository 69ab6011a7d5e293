"""Exact passes through a model, counted from outside."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Tally:
    """Rows that went through a model, forward and backward."""

    forward: int = 0
    backward: int = 0


class Counted(nn.Module):
    """A model that counts. Logits without a gradient, or never differentiated, count forward only.

    A wrapper, not hooks on the model: some callers run an nn.Sequential's layers one by one.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.tally = Tally()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        logits: Tensor = self.module(x)
        self.tally.forward += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._backward)
        return logits

    def _backward(self, gradient: Tensor) -> None:
        self.tally.backward += len(gradient)
