"""How much neighbouring positions repeat each other: correlation by distance, on maps or images.

That neighbouring pixels are alike is why small shared filters and pooling lose little. Layers make
correlation of their own, as the areas that neighbouring features see overlap: white noise through
the same layers shows how much.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ...bench.api.errors import BadData
from ...bench.api.rng import Draws
from .layers import read


def correlation_by_distance(maps: Tensor, distances: Iterable[int]) -> Tensor:
    """Pearson's correlation of two positions that lie d apart, for each d: (n,) float64.

    maps: (N, C, H, W), images or features. distances: in pixels of the maps, to the right and
    downwards, 0 and up. It is taken over all images and places within a channel, and averaged over
    the two directions and over channels; channels that do not vary are left out.

    Raises: BadData for maps of another shape, that do not vary, or smaller than a distance.

    >>> stripes = torch.tensor([0.0, 1.0]).repeat(4).expand(1, 1, 8, 8)
    >>> correlation_by_distance(stripes, [2, 4]).round(decimals=6)
    tensor([1., 1.], dtype=torch.float64)
    """
    wanted = list(distances)
    if maps.dim() != 4 or not wanted or not 0 <= min(wanted) <= max(wanted) < min(maps.shape[2:]):
        raise BadData(f"distances {wanted} on maps of shape {tuple(maps.shape)}, not (N, C, H, W)")
    channels = maps.double().transpose(0, 1)
    channels = channels[channels.flatten(1).std(dim=1) > 0]
    if not len(channels):
        raise BadData("no channel of these maps varies")
    found = []
    for distance in wanted:
        right = _correlation(channels[..., distance:], channels[..., : -distance or None])
        down = _correlation(channels[..., distance:, :], channels[..., : -distance or None, :])
        found.append(torch.cat([right, down]).nanmean())
    return torch.stack(found)


def layer_correlations(
    model: nn.Module, x: Tensor, layers: Iterable[str], distances: Iterable[int]
) -> dict[str, Tensor]:
    """Name -> `correlation_by_distance` of what a layer gives; "" is the images themselves.

    x: (B, C, H, W) in [0, 1]. A layer's distances end where its maps do.

    Raises: BadParameter for an unknown layer; BadData for one without maps.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    >>> found = layer_correlations(model, torch.rand(5, 3, 8, 8), ["", "0"], range(8))
    >>> found[""].shape, found["0"].shape
    (torch.Size([8]), torch.Size([6]))
    """
    names, wanted = list(layers), list(distances)
    with torch.no_grad():
        _, found = read(model, x, [name for name in names if name])
    maps = {name: found[name] if name else x for name in names}
    for name, one in maps.items():
        if one.dim() != 4:
            raise BadData(f"layer '{name}' gives {tuple(one.shape)}, not maps (B, C, H, W)")
    return {
        name: correlation_by_distance(one, [d for d in wanted if d < min(one.shape[2:])])
        for name, one in maps.items()
    }


def white_noise(images: Tensor, seed: int = 0) -> Tensor:
    """Normal noise, each pixel by itself, of each channel's mean and spread: (N, C, H, W).

    It is not clipped to [0, 1], which would change both.

    >>> noise = white_noise(0.1 * torch.rand(200, 3, 8, 8))
    >>> noise.shape, round(float(noise.mean()), 2), round(float(noise.std()), 2)
    (torch.Size([200, 3, 8, 8]), 0.05, 0.03)
    """
    rows = torch.arange(len(images))
    zeros = torch.zeros_like(rows)
    noise = Draws(seed, rows, zeros, zeros).normal(images.shape[1:], "white noise").to(images)
    spread, mean = torch.std_mean(images, dim=(0, 2, 3), keepdim=True)
    return mean + spread * noise


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """(C, ...) each -> (C,): Pearson's, over all but the first axis; NaN where one is constant."""
    first, second = (
        part.flatten(1) - part.flatten(1).mean(1, keepdim=True) for part in (one, other)
    )
    found: Tensor = (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1))
    return found
