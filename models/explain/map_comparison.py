"""Maps compared with each other, and with where the object is.

All functions take maps (B, H, W) that are not negative, such as `ActivationMaps.upsampled` gives,
and measure in pixels of those maps.
"""

from dataclasses import dataclass

import torch
from scipy.stats import spearmanr
from torch import Tensor

from ...bench.api.errors import BadData
from .similarity import ssim


@dataclass(frozen=True)
class MapComparison:
    """How maps differ from those that they are compared with. Nothing here is ever NaN.

    rows: (n,) int64, the numbers of the pairs that could be compared. blank: the numbers of the
    others, where one of the two maps is the same everywhere, zero as a rule, so that it has no
    order. All else is float64, one value for each of `rows`:

    rank_correlation: Spearman's, over pixels. ssim: structural similarity, with the larger of the
    two maps' maxima as range. shift: how far the centre of mass moved, in pixels. mass_left: the
    sum of the map over that of the reference.
    """

    rows: Tensor
    blank: Tensor
    rank_correlation: Tensor
    ssim: Tensor
    shift: Tensor
    mass_left: Tensor


def compare_maps(maps: Tensor, reference: Tensor) -> MapComparison:
    """Compare each map with its reference, both (B, H, W).

    Raises: BadData for maps of two shapes, or with negative values; BadParameter without
    scikit-image (extra `insight`).

    >>> before, after = torch.zeros(2, 8, 8), torch.zeros(2, 8, 8)
    >>> before[0, 2, 2], after[0, 2, 5] = 1.0, 0.5
    >>> found = compare_maps(after, before)
    >>> found.rows.tolist(), found.blank.tolist(), found.shift.tolist(), found.mass_left.tolist()
    ([0], [1], [3.0], [0.5])
    """
    _checked(maps)
    _checked(reference)
    if maps.shape != reference.shape:
        raise BadData(f"maps {tuple(maps.shape)} compared with {tuple(reference.shape)}")
    varies = _varies(maps) & _varies(reference)
    rows, blank = varies.nonzero()[:, 0], (~varies).nonzero()[:, 0]
    one, other = maps[rows].double().cpu(), reference[rows].double().cpu()
    correlations = [
        float(spearmanr(first.flatten(), second.flatten()).statistic)
        for first, second in zip(one.numpy(), other.numpy(), strict=True)
    ]
    return MapComparison(
        rows,
        blank,
        torch.tensor(correlations, dtype=torch.float64),
        ssim(one, other, peak=torch.maximum(one.amax(dim=(1, 2)), other.amax(dim=(1, 2)))),
        (centre_of_mass(one) - centre_of_mass(other)).norm(dim=1),
        one.sum(dim=(1, 2)) / other.sum(dim=(1, 2)),
    )


def centre_of_mass(maps: Tensor) -> Tensor:
    """(B, H, W), each with a positive sum -> (B, 2) float64: row and column, in pixels.

    >>> centre_of_mass(torch.ones(1, 3, 5))
    tensor([[1., 2.]], dtype=torch.float64)
    """
    weights = maps.double() / maps.double().sum(dim=(1, 2), keepdim=True)
    places = [
        torch.arange(side, dtype=torch.float64, device=maps.device) for side in maps.shape[1:]
    ]
    return torch.stack([weights.sum(2) @ places[0], weights.sum(1) @ places[1]], dim=1)


@dataclass(frozen=True)
class Localisation:
    """How well maps show where the object is.

    hit: (B,) bool, whether the largest value lies on the object (the pointing game). rows: (n,)
    int64, the maps that are not blank; a blank one is no hit. energy: (n,) float64 in [0, 1], the
    share of each of their sums that lies on the object. chance: (B,) float64, the object's share of
    the pixels: what a map gets in both that knows nothing.
    """

    hit: Tensor
    rows: Tensor
    energy: Tensor
    chance: Tensor


def localisation(maps: Tensor, masks: Tensor) -> Localisation:
    """Score maps (B, H, W) against masks (B, H, W) bool, true on the object.

    Sources: the pointing game is from Zhang et al. 2016 (arXiv:1608.00507), here without their
    tolerance of 15 pixels; the energy from Wang et al. 2020 (arXiv:1910.01279, section 4.3).

    Raises: BadData for masks of another shape, or maps with negative values.

    >>> maps, masks = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool)
    >>> maps[0, 0, :2], masks[0, 0, 0] = torch.tensor([3.0, 1.0]), True
    >>> found = localisation(maps, masks)
    >>> bool(found.hit), float(found.energy), float(found.chance)
    (True, 0.75, 0.0625)
    """
    _checked(maps)
    if masks.shape != maps.shape or masks.dtype != torch.bool:
        raise BadData(f"masks {tuple(masks.shape)} of {masks.dtype} for maps {tuple(maps.shape)}")
    total = maps.double().sum(dim=(1, 2))
    rows = (total > 0).nonzero()[:, 0]
    largest = maps.flatten(1).argmax(dim=1, keepdim=True)
    hit = masks.flatten(1).gather(1, largest)[:, 0] & (total > 0)
    inside = (maps.double() * masks).sum(dim=(1, 2))
    return Localisation(hit, rows, inside[rows] / total[rows], masks.double().mean(dim=(1, 2)))


def _varies(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    return flat.amax(dim=1) > flat.amin(dim=1)


def _checked(maps: Tensor) -> None:
    if maps.dim() != 3 or not bool((maps >= 0).all()):
        raise BadData(f"maps must be (B, H, W) and not negative; these are {tuple(maps.shape)}")
