"""Slices through the loss, along directions in weight space or in input space.

Source: Li, Xu, Taylor, Studer & Goldstein 2018, "Visualizing the loss landscape of neural nets",
arXiv:1712.09913, section 4: filter-wise normalised directions.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call

from ...bench.api.errors import BadData, BadParameter
from .layers import evaluating, read

_ROUNDING = 1e-6  # of the longest step: how far from 0 a step may be that is meant to be 0

Direction = Mapping[str, Tensor]
"""Name of a parameter -> what one unit along the direction adds to it."""


def filter_normalised_direction(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A random direction whose filters are as long as those of the network (section 4).

    Each filter, what one output channel or unit is made of, has the L2 norm of the network's own.
    Parameters of one axis, biases and batch normalisation, are left alone. So scaling the weights
    before a normalisation, which changes no answer, changes no slice either.

    >>> direction = filter_normalised_direction(nn.Linear(3, 2))
    >>> direction["weight"].shape, direction["bias"]
    (torch.Size([2, 3]), tensor([0., 0.]))
    """
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in model.named_parameters():
        found[name] = torch.zeros_like(weight.detach())
        if weight.dim() > 1:
            drawn = torch.randn(weight.shape, generator=generator).to(weight)
            length = weight.detach().flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1)
            found[name] = drawn * length.reshape(-1, *[1] * (weight.dim() - 1))
    return found


def loss_slice(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    directions: Sequence[Direction],
    steps: Tensor,
    *,
    batch_size: int = 256,
) -> Tensor:
    """Mean cross-entropy along one direction, (n,), or over the plane of two, (n, n): float64.

    x: (B, C, H, W), y: (B,). steps: (n,), how far to go: 1 along a filter-normalised direction adds
    to each filter another of its own length. [i, j] is steps[i] along the first and steps[j] along
    the second. In evaluation mode: batch normalisation keeps its statistics.

    Raises: BadParameter for other than one or two directions.

    >>> model, steps = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), torch.linspace(-1, 1, 5)
    >>> x, y = torch.rand(4, 3, 1, 1), torch.tensor([0, 1, 0, 1])
    >>> directions = [filter_normalised_direction(model, seed) for seed in (0, 1)]
    >>> loss_slice(model, x, y, directions[:1], steps).shape
    torch.Size([5])
    >>> loss_slice(model, x, y, directions, steps).shape
    torch.Size([5, 5])
    """
    if len(directions) not in (1, 2):
        raise BadParameter(f"a slice has one direction or two, not {len(directions)}")
    places = torch.cartesian_prod(*[steps] * len(directions)).reshape(-1, len(directions))
    losses = torch.zeros(len(places), dtype=torch.float64)
    own = {name: value.detach() for name, value in model.named_parameters()}
    with evaluating(model), torch.no_grad():
        for number, place in enumerate(places.tolist()):
            moved = dict(own)
            for step, direction in zip(place, directions, strict=True):
                moved |= {name: moved[name] + step * along for name, along in direction.items()}
            for rows in torch.arange(len(x), device=x.device).split(batch_size):
                logits = functional_call(model, moved, (x[rows],))
                total = F.cross_entropy(logits.double(), y[rows], reduction="sum")
                losses[number] += total.cpu() / len(x)
    return losses.reshape([len(steps)] * len(directions))


def input_slice(
    model: nn.Module, x: Tensor, y: Tensor, directions: Tensor, steps: Tensor
) -> Tensor:
    """The cross-entropy of each image along its own direction: (n, B) float64.

    x: (B, C, H, W), directions: the same shape, steps: (n,). Nothing is clipped.

    Raises: BadData for directions of another shape.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    >>> x, y = torch.rand(4, 3, 1, 1), torch.tensor([0, 1, 0, 1])
    >>> input_slice(model, x, y, torch.ones_like(x), torch.linspace(0, 1, 5)).shape
    torch.Size([5, 4])
    """
    if directions.shape != x.shape:
        raise BadData(f"directions {tuple(directions.shape)} for images {tuple(x.shape)}")
    losses = []
    with torch.no_grad():
        for step in steps.tolist():
            logits, _ = read(model, x + step * directions, [])
            losses.append(F.cross_entropy(logits.double(), y, reduction="none").cpu())
    return torch.stack(losses)


def doubling_width(steps: Tensor, losses: Tensor) -> float:
    """How wide the valley is in which the loss is below twice its value at zero.

    steps: (n,) ascending, with 0 among them. losses: (n,). Interpolated linearly; infinite where
    the slice ends before.

    Raises: BadParameter for steps without 0.

    >>> steps = torch.linspace(-2, 2, 41)
    >>> round(doubling_width(steps, 1.0 + steps.abs()), 6)
    2.0
    """
    middle = int(steps.abs().argmin())
    if float(steps[middle].abs()) > _ROUNDING * float(steps.abs().max()):
        raise BadParameter("the steps of the slice must have 0 among them")
    right = _crossing(steps[middle:], losses[middle:])
    left = _crossing(-steps[: middle + 1].flip(0), losses[: middle + 1].flip(0))
    return left + right


def _crossing(steps: Tensor, losses: Tensor) -> float:
    """Where the loss first reaches twice its first value."""
    level = 2.0 * losses[0]
    above = (losses >= level).nonzero()
    if not len(above) or int(above[0]) == 0:
        return float("inf") if not len(above) else 0.0
    after = int(above[0])
    low, high = losses[after - 1], losses[after]
    part = (level - low) / (high - low)
    return float(steps[after - 1] + part * (steps[after] - steps[after - 1]))
