"""A network's answers to fixed images: what tells that it computes something else than before."""

import math
import time
from collections.abc import Sequence

import torch
from torch import nn

from ..api.rng import Draws
from .model import Network, frozen
from .unchanged_weights import restored

_IMAGES = 8
_TIMED = 16
_TOLERANCE = 1e-3  # of the largest logit; kernels of other processors differ by less


def probe(
    module: nn.Module, shape: tuple[int, int, int], device: torch.device
) -> list[list[float]]:
    """The logits of 8 images of noise, as lists. shape: (C, H, W).

    Weights say nothing of a constant in the code or a file that a module reads; logits do.

    Raises: CellError as a Network's.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(_IMAGES, *shape, generator=generator)
    with frozen(module), torch.no_grad():
        network = Network(module, device, _IMAGES)
        rows = torch.arange(_IMAGES, device=device)
        noise = Draws(0, rows, 0 * rows, 0 * rows) if network.stochastic else None
        logits: list[list[float]] = network.logits(images.to(device), noise).cpu().tolist()
    return logits


def pass_seconds(module: nn.Module, shape: tuple[int, int, int], device: torch.device) -> float:
    """About how long a forward pass takes for each image of a batch, in seconds.

    shape: (C, H, W). Measured once, after another pass: enough to divide work by.
    """
    images = torch.zeros(_TIMED, *shape, device=device)
    rows = torch.arange(_TIMED, device=device)
    with frozen(module), restored(module), torch.no_grad():
        network = Network(module, device, _TIMED)
        noise = Draws(0, rows, 0 * rows, 0 * rows) if network.stochastic else None
        network.logits(images, noise).cpu()
        began = time.perf_counter()
        network.logits(images, noise).cpu()
    return (time.perf_counter() - began) / _TIMED


def same_answers(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> bool:
    """Whether two probes agree to a thousandth of the largest logit."""
    if [len(row) for row in one] != [len(row) for row in other]:
        return False
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    largest = max((abs(value) for pair in pairs for value in pair), default=0.0)
    return all(a == b or math.isclose(a, b, abs_tol=_TOLERANCE * largest) for a, b in pairs)
