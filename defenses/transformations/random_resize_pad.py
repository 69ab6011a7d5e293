"""Random resizing and padding: the image never lies where an attack has seen it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...bench.api.rng import noise
from ..training.loop.training_config import require
from .base import InputTransformation


@dataclass(frozen=True, kw_only=True)
class RandomResizePad(InputTransformation):
    """Random resizing and padding: the image in a random size at a random place among zeros.

    Source: Xie et al. 2018 (arXiv:1711.01991), section 3.2. Each image that is looked at gets a
    size and a place of its own, drawn uniformly, and is resized by the nearest neighbour. Under
    attack gradients are means over several draws (EOT).

    smallest: the smallest size as a part of the image's; the paper's is 299 in a canvas of 331.
    base: what trains the network, on images of full size, as in the paper.

    Deviation: the paper enlarges 299 pixels to a canvas of 331; here the canvas is the image's own,
    so that networks of a fixed input size can see it, and the image is shrunk.

    Raises: BadParameter for a value that cannot be used.

    The size stays, what is around the shrunk image is black, and each call has another place:
    >>> import torch
    >>> from quintain.defenses.transformations.random_resize_pad import RandomResizePad
    >>> layer = RandomResizePad(smallest=0.5).layer()
    >>> images = torch.ones(1, 1, 8, 8)
    >>> layer(images).shape, len({float(layer(images).sum()) for _ in range(20)}) > 1
    (torch.Size([1, 1, 8, 8]), True)
    """

    smallest: float = 0.9

    def __post_init__(self) -> None:
        require("smallest", self.smallest, 0.0 < self.smallest < 1.0, "above 0 and below 1")

    def layer(self) -> nn.Module:
        """Make the layer that resizes and pads."""
        return ResizedAndPadded(self.smallest)


class ResizedAndPadded(nn.Module):
    """Shrinks each image of (B, C, H, W) at random and puts it among zeros.

    That is linear, x -> R x C' with a row of 0 and at most one 1 for each row, so that it has an
    exact gradient and needs no loop over images.
    """

    stochastic: ClassVar[bool] = True

    def __init__(self, smallest: float) -> None:
        super().__init__()
        self.smallest = smallest

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        draw = noise(x).uniform((3,), "resize-pad")
        height, width = x.shape[2:]
        low = min(height, max(1, round(self.smallest * height)))
        sizes = low + (draw[:, 0] * (height - low + 1)).long()
        wide = (sizes * width / height).round().long().clamp(1, width)
        rows = shrinking(height, sizes, draw[:, 1]).to(x.dtype)
        columns = shrinking(width, wide, draw[:, 2]).to(x.dtype)
        return rows[:, None] @ x @ columns[:, None].mT


def shrinking(side: int, sizes: Tensor, places: Tensor) -> Tensor:
    """(B, side, side) of 0 and 1: shrinks a side to sizes (B,) by the nearest neighbour.

    places: (B,) in [0, 1), where in the room that is left.
    """
    before = (places * (side - sizes + 1)).long()
    at = torch.arange(side, device=sizes.device)
    own = at - before[:, None]
    inside = (own >= 0) & (own < sizes[:, None])
    source = torch.div(own.clamp(min=0) * side, sizes[:, None], rounding_mode="floor")
    return (source[:, :, None] == at) & inside[:, :, None]
