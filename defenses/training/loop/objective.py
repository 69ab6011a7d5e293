"""The hook of the training loop: what a defense makes of a batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ....bench.api.errors import BadPlugin

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

    Optional, with their defaults:
        replays = 1             how many times in a row each batch is given, a step each time
        state_dict()            what is carried from batch to batch, tensors, numbers and texts by
                                name, which a run that was interrupted and goes on gets back, on the
                                CPU, through `load_state_dict(state)`; nothing

    A run may compute in another precision, by autocast around `objective` and `adversarial`.
    """

    @property
    def warmup_epochs(self) -> int:
        """First epochs in which the method is not at full strength: nothing of them is kept."""

    def objective(self, model: nn.Module, batch: Batch) -> Objective:
        """Forward passes in training mode on what the method makes of the batch."""

    def adversarial(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Inputs (B, C, H, W) that attacks find near a validation batch, by the attacks' names.

        The model is in evaluation mode. Accuracy on those named "robust" decides which weights are
        kept; without any, clean accuracy does.
        """

    def alarm(self, history: History) -> str | None:
        """Why training should end now, if it should: it becomes a flag."""


class Head(NamedTuple):
    """What one classifier of a network says, logits (B, K), and how much its loss counts."""

    logits: Tensor
    weight: float


Heads = tuple[Head, ...]
Forward = Callable[[Tensor], Heads]  # (B, C, H, W) -> what each head says, the main one first


def heads(model: nn.Module, outputs: Tensor | tuple[Tensor, ...]) -> Heads:
    """Weigh the outputs of a network: auxiliary logits count its `auxiliary_weight` times.

    As in GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842, section 5).

    Raises: BadPlugin when a network with auxiliary logits does not say their weight.
    """
    main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    if not auxiliary:
        return (Head(main, 1.0),)
    weight: float | None = getattr(model, "auxiliary_weight", None)
    if weight is None:
        raise BadPlugin(
            f"{type(model).__name__} returns auxiliary logits but has no `auxiliary_weight`"
        )
    return (Head(main, 1.0), *(Head(one, weight) for one in auxiliary))


def over_heads(loss: Callable[..., Tensor], *passes: Heads) -> Tensor:
    """The loss of the main logits, plus that of each auxiliary head by its weight.

    passes: what the heads say of one batch, or of several; the loss is called with the logits of
    one head on all of them.
    """
    main, *auxiliary = ([one.logits for one in group] for group in zip(*passes, strict=True))
    total = loss(*main)
    for logits, head in zip(auxiliary, passes[0][1:], strict=True):
        total = total + head.weight * loss(*logits)
    return total


def classified(found: Heads, y: Tensor, *, label_smoothing: float = 0.0) -> Objective:
    """Mean cross-entropy of what the heads say. y: (B,) int64 classes or (B, K) probabilities."""
    loss = over_heads(lambda one: F.cross_entropy(one, y, label_smoothing=label_smoothing), found)
    return Objective(loss, found[0].logits)


def classification(
    model: nn.Module, x: Tensor, y: Tensor, *, label_smoothing: float = 0.0
) -> Objective:
    """Mean cross-entropy of the logits, plus that of each auxiliary classifier by its weight.

    y: (B,) int64 classes or (B, K) probabilities.

    Raises: BadPlugin when a network with auxiliary logits does not say their weight.
    """
    return classified(heads(model, model(x)), y, label_smoothing=label_smoothing)


def hard(y: Tensor) -> Tensor:
    """(B,) int64: the classes, or the most probable ones of (B, K) probabilities."""
    return y if y.dim() == 1 else y.argmax(dim=1)
