"""Augmentation: images moved by a few pixels and mirrored at random, a whole batch at once."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

AugmentationName = Literal["none", "shift", "shift-flip"]


class Transform(Protocol):
    """One kind of random change. Several follow one another."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, ...): random numbers for as many images, from a generator on the CPU."""

    def __call__(self, x: Tensor, drawn: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same, changed by its random numbers (B, ...)."""


@dataclass(frozen=True)
class Augmentation:
    """Random shifts with black entering at the border, and random mirror images.

    The same as cropping at random from the image padded with zeros, as is usual on CIFAR.

    most: most pixels to move by, along each axis. mirror: whether to mirror every other image.
    """

    most: int
    mirror: bool

    @classmethod
    def named(
        cls, name: AugmentationName, most: int | None, shape: tuple[int, ...]
    ) -> "Augmentation":
        """The augmentation of that name; `most` defaults to an eighth of the shorter side."""
        if name == "none":
            return cls(0, mirror=False)
        return cls(min(shape[1:]) // 8 if most is None else most, mirror=name == "shift-flip")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3) int64: for each image, pixels down, pixels right, and whether to mirror."""
        moves = torch.randint(-self.most, self.most + 1, (count, 2), generator=generator)
        mirrored = torch.randint(0, 1 + self.mirror, (count, 1), generator=generator)
        return torch.cat([moves, mirrored], dim=1)

    def __call__(self, x: Tensor, drawn: Tensor) -> Tensor:
        """(B, C, H, W), (B, 3) -> (B, C, H, W): mirror, then move."""
        if not (self.most or self.mirror):
            return x
        batch, channels, height, width = x.shape
        down, right, mirrored = (column[:, None] for column in drawn.unbind(1))
        rows = torch.arange(height, device=x.device) - down + self.most
        columns = torch.arange(width, device=x.device) - right
        columns = torch.where(mirrored.bool(), width - 1 - columns, columns) + self.most
        padded = F.pad(x, [self.most] * 4)
        wide = padded.shape[3]
        picked = padded.gather(2, rows[:, None, :, None].expand(batch, channels, height, wide))
        return picked.gather(3, columns[:, None, None, :].expand(batch, channels, height, width))
