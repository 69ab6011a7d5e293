"""The hook of the training loop: what a defense makes of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..bench.errors import BadPlugin

History = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Batch:
    """Some examples on the device, augmented when they are to be trained on.

    x: (B, C, H, W) in [0, 1]. y: (B,) int64 classes or (B, K) float32 probabilities.
    rows: (B,) int64, which examples of their part they are, for methods that remember something of
        each.
    epoch: epochs done, with the part of the present one.
    generator: random numbers on the device.
    """

    x: Tensor
    y: Tensor
    rows: Tensor
    epoch: float
    generator: torch.Generator


class Objective(NamedTuple):
    """What to descend, a scalar, and the logits (B, K) that the training accuracy is taken from."""

    loss: Tensor
    logits: Tensor


class Method(Protocol):
    """How a defense trains and is validated.

    TRADES, MART and the like differ in `objective`; adversarial weight perturbation can wrap
    another's by calling the model with perturbed parameters (`torch.func.functional_call`).

    A method that remembers something from step to step (a perturbation that is replayed, other
    weights) has `state_dict() -> dict` and `load_state_dict(state)` besides, of tensors, numbers
    and texts: a run that is cut off and goes on takes it up again. State comes back on the CPU.

    A run may compute in another precision, by autocast around `objective` and `adversarial`.
    """

    @property
    def warmup_epochs(self) -> int:
        """First epochs in which the method is not at full strength: nothing of them is kept."""

    def objective(self, model: nn.Module, batch: Batch) -> Objective:
        """One forward pass in training mode on what the method makes of the batch."""

    def adversarial(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Inputs (B, C, H, W) that attacks find near a validation batch, by the attacks' names.

        The model is in evaluation mode. Accuracy on those named "robust" decides which weights are
        kept; without any, clean accuracy does.
        """

    def alarm(self, history: History) -> str | None:
        """Why training should end now, if it should: it becomes a flag."""


def classification(
    model: nn.Module, x: Tensor, y: Tensor, *, label_smoothing: float = 0.0
) -> Objective:
    """Mean cross-entropy of the logits, plus that of each auxiliary classifier by its weight.

    y: (B,) int64 classes or (B, K) probabilities. Auxiliary logits count `auxiliary_weight` times,
    as in GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842, section 5).

    Raises: BadPlugin when a network with auxiliary logits does not say their weight.
    """
    outputs = model(x)
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = F.cross_entropy(logits, y, label_smoothing=label_smoothing)
    if auxiliary:
        weight = getattr(model, "auxiliary_weight", None)
        if weight is None:
            raise BadPlugin(
                f"{type(model).__name__} returns auxiliary logits but has no `auxiliary_weight`"
            )
        for one in auxiliary:
            loss = loss + weight * F.cross_entropy(one, y, label_smoothing=label_smoothing)
    return Objective(loss, logits)


def hard(y: Tensor) -> Tensor:
    """(B,) int64: the classes, or the most probable ones of (B, K) probabilities."""
    return y if y.dim() == 1 else y.argmax(dim=1)
