"""Squeezers: layers that leave an image fewer values than it has."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class BitDepth(nn.Module):
    """Round each pixel to one of 2^bits evenly spaced grey levels (arXiv:1704.01155, section 3.1).

    Without a gradient: attacks pass its identity surrogate (BPDA).
    """

    differentiable = False

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> the same shape."""
        levels = 2**self.bits - 1
        squeezed: Tensor = (x * levels).round() / levels
        return squeezed


class Median(nn.Module):
    """Replace each pixel by the median of a square window (arXiv:1704.01155, section 3.2).

    As scipy's `median_filter`, which the paper uses: a window of even size reaches one pixel
    farther up and left, and has the upper of its two medians. At the borders the outermost pixels
    are repeated; scipy's "reflect" is the same up to size 3.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        before = self.size // 2
        after = self.size - 1 - before
        padded = F.pad(x, (before, after, before, after), mode="replicate")
        windows = padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(-2)
        return windows.sort(dim=-1).values[..., self.size**2 // 2]
