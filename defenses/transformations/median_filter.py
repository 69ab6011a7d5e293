"""The median filter: a pixel becomes the median of those around it, so that outliers vanish."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..training.loop.training_config import require
from .base import InputTransformation


@dataclass(frozen=True, kw_only=True)
class MedianFilter(InputTransformation):
    """Median filter: each pixel becomes the median of a window of its channel.

    Source: Xu et al. 2018 (arXiv:1704.01155), section III-B: windows of 2x2 (with the pixel at the
    lower right, and of the two values in the middle the larger) or 3x3, the image mirrored at its
    edges. The same numbers as scipy's `median_filter`. It has a gradient almost everywhere, that of
    the pixel chosen, and attacks follow it: on digits it led further than BPDA with the identity or
    with the window's mean (docs/measurements/defenses.md).

    window: side of the window in pixels. base: what trains the network, on unfiltered images.

    Raises: BadParameter for a value that cannot be used.

    A single bright pixel is gone:
    >>> import torch
    >>> from quintain.defenses.transformations.median_filter import MedianFilter
    >>> image = torch.zeros(1, 1, 5, 5)
    >>> image[0, 0, 2, 2] = 1.0
    >>> float(MedianFilter(window=3).layer()(image).max())
    0.0
    """

    window: int = 2

    def __post_init__(self) -> None:
        require("window", self.window, self.window >= 2, "2 or more")

    def layer(self) -> nn.Module:
        """Make the filter."""
        return Median(self.window)


class Median(nn.Module):
    """Medians of the windows around each pixel of (B, C, H, W)."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        height, width = (
            _mirrored(side, self.window).to(x.device) for side in (x.shape[2], x.shape[3])
        )
        padded = x[:, :, height][:, :, :, width]
        views = padded.unfold(2, self.window, 1).unfold(3, self.window, 1)
        return views.flatten(4).sort(dim=-1).values[..., self.window**2 // 2]


def _mirrored(side: int, window: int) -> Tensor:
    """(side + window - 1,) int64: where padded rows come from, the edge repeated: b a | a b c."""
    at = torch.arange(-(window // 2), side + window - 1 - window // 2) % (2 * side)
    return torch.where(at < side, at, 2 * side - 1 - at)
