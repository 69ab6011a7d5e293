"""What makes a number doubtful: flags that the harness raises by itself."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from .network import Network
from .protocols import Access

_VANISHING = 0.1  # share of examples without any gradient above which a model is flagged


def doubts(
    network: Network,
    images: Tensor,
    labels: Tensor,
    rows: Tensor,
    access: set[Access],
    refuted: int,
    cut_short: int = 0,
) -> tuple[str, ...]:
    """Flags of a cell.

    images: (N, C, H, W). labels: (N,). rows: (n,) int64, the examples under attack. refuted: how
    many examples had adversarial examples that did not hold when asked again. cut_short: how many
    were still robust somewhere when their query budget ended.
    """
    flags = []
    if refuted:
        flags.append(f"refuted-adversarials:{refuted}")
    if cut_short:
        flags.append(f"budget-ended:{cut_short}")
    again = predictions(network, images.flip(0)).flip(0)[rows]
    changed = int((again != labels[rows]).sum())
    if changed:
        flags.append(f"unstable-predictions:{changed}")
    if len(rows) and "white-box" in access:
        dead = _vanishing(network, images[rows], labels[rows])
        if dead > _VANISHING:
            flags.append(f"vanishing-gradients:{dead:.0%}")
    return tuple(flags)


def predictions(network: Network, images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N,) int64 predicted classes, on the CPU."""
    parts = images.split(network.batch_size)
    return torch.cat([network.logits(part).argmax(1).cpu() for part in parts])


def _vanishing(network: Network, images: Tensor, labels: Tensor) -> float:
    """Share of examples at which the gradient of the cross-entropy is zero everywhere."""
    dead, size = 0, network.batch_size
    for x, y in zip(images.split(size), labels.split(size), strict=True):
        objective = partial(functional.cross_entropy, target=y.to(network.device), reduction="none")
        gradient = network.gradient(x, objective).gradient
        dead += int((gradient.flatten(1).abs().amax(1) == 0).sum())
    return dead / len(images)
