"""Baseline JPEG in tensors, batched: an image after compression, without the file between.

Source: ITU-T T.81 (1992), annexes A and K, and the JFIF conversion of colours. Where the standard
leaves the choice, as libjpeg does: colours are averaged over 2x2 pixels and interpolated linearly.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...bench.api.errors import BadParameter

# Annex K, tables K.1 and K.2: for brightness and for colours, at quality 50.
_BRIGHTNESS = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
_COLOURS = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *[[99] * 8] * 4,
]
_TO_YCBCR = [[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]]  # of 65536
_TO_RGB = [[1.0, 0.0, 1.402], [1.0, -0.344136286, -0.714136286], [1.0, 1.772, 0.0]]
_MIDDLE = 128.0
_BLOCK = 8
_IN_REACH = 0.25  # of a step; half a step is where rounding keeps something of a coefficient


class Codec(nn.Module):
    """Compresses (B, 1 or 3, H, W) in [0, 1] and opens it again. quality: 1 to 100, libjpeg's."""

    brightness: Tensor
    colours: Tensor
    cosines: Tensor
    to_ycbcr: Tensor
    to_rgb: Tensor

    def __init__(self, quality: int) -> None:
        super().__init__()
        constants = {
            "brightness": scaled_table(_BRIGHTNESS, quality),
            "colours": scaled_table(_COLOURS, quality),
            "cosines": cosine_transform(),
            "to_ycbcr": torch.tensor(_TO_YCBCR) / 65536.0,
            "to_rgb": torch.tensor(_TO_RGB),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)  # no part of a network's weights

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), of 256 levels. Raises: BadParameter for other channels."""
        x = (255.0 * x).round()
        if x.shape[1] == 1:
            opened = self._quantised(x - _MIDDLE, self.brightness)
        else:
            y, colours = self._parted(x).split([1, 2], dim=1)
            y = self._quantised((y + 0.5).floor() - _MIDDLE, self.brightness)
            small = _by_turns(_halved((colours - 0.5).ceil()), odd_up=True)
            small = self._quantised(small, self.colours)
            large = _by_turns(_doubled(small, x.shape[2:]), odd_up=False)
            opened = (self._joined(torch.cat([y, large], dim=1)) + 0.5).floor()
        return (opened + _MIDDLE).clamp(0.0, 255.0) / 255.0

    def unrounded(self, x: Tensor) -> Tensor:
        """The same with a derivative: nothing is rounded, but small coefficients are left out."""
        x = 255.0 * x
        if x.shape[1] == 1:
            opened = self._sifted(x - _MIDDLE, self.brightness)
        else:
            y, colours = self._parted(x).split([1, 2], dim=1)
            y = self._sifted(y - _MIDDLE, self.brightness)
            small = self._sifted(_halved(colours), self.colours)
            opened = self._joined(torch.cat([y, _doubled(small, x.shape[2:])], dim=1))
        return (opened + _MIDDLE) / 255.0

    def _parted(self, x: Tensor) -> Tensor:
        """RGB to brightness and two colours, these around 0."""
        if x.shape[1] != 3:
            raise BadParameter(f"JPEG takes images of 1 or 3 channels, not {x.shape[1]}")
        parted: Tensor = torch.einsum("kc,bchw->bkhw", self.to_ycbcr, x)
        return parted

    def _joined(self, x: Tensor) -> Tensor:
        """Brightness and colours to RGB."""
        joined: Tensor = torch.einsum("kc,bchw->bkhw", self.to_rgb, x)
        return joined

    def _quantised(self, planes: Tensor, table: Tensor) -> Tensor:
        """(B, C, H, W) around 0, coefficients of its 8x8 blocks rounded to multiples of a table."""
        opened = self._in_blocks(planes, lambda found: to_multiples(found, table))
        return opened.round().clamp(-_MIDDLE, _MIDDLE - 1.0)

    def _sifted(self, planes: Tensor, table: Tensor) -> Tensor:
        """(B, C, H, W), without the coefficients that are far from being kept."""
        return self._in_blocks(
            planes, lambda found: found * (found.detach().abs() >= _IN_REACH * table)
        )

    def _in_blocks(self, planes: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, C, H, W), something done to the coefficients of its 8x8 blocks."""
        height, width = planes.shape[2:]
        padded = _extended(planes, _up(height, _BLOCK), _up(width, _BLOCK))
        rows, columns = padded.shape[2] // _BLOCK, padded.shape[3] // _BLOCK
        blocks = padded.unflatten(3, (columns, _BLOCK)).unflatten(2, (rows, _BLOCK))
        blocks = blocks.transpose(3, 4)  # (B, C, rows, columns, 8, 8)
        coefficients = change(self.cosines @ blocks @ self.cosines.T)
        blocks = self.cosines.T @ coefficients @ self.cosines
        opened = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)
        return opened[:, :, :height, :width]


def to_multiples(coefficients: Tensor, table: Tensor) -> Tensor:
    """The nearest multiples; of two as near the larger, after rounding to eighths: as libjpeg's."""
    eighths = (8.0 * coefficients).round()
    count = ((eighths.abs() + 4.0 * table) / (8.0 * table)).floor()
    return eighths.sign() * count * table


def scaled_table(table: list[list[int]], quality: int) -> Tensor:
    """(8, 8): libjpeg's table for a quality."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table) * scale + 50) // 100).clamp(1, 255).float()


def cosine_transform() -> Tensor:
    """(8, 8), orthonormal: row k is the k-th cosine."""
    at = torch.arange(_BLOCK, dtype=torch.float64)
    rows = torch.cos(math.pi * (at[None, :] + 0.5) * at[:, None] / _BLOCK) * math.sqrt(2 / _BLOCK)
    rows[0] /= math.sqrt(2)
    return rows.float()


def _by_turns(planes: Tensor, *, odd_up: bool) -> Tensor:
    """Rounded; of two as near, the larger in every other column, the smaller between."""
    odd = torch.arange(planes.shape[3], device=planes.device) % 2 == 1
    return torch.where(odd == odd_up, (planes + 0.5).floor(), (planes - 0.5).ceil())


def _halved(planes: Tensor) -> Tensor:
    """Means of 2x2 pixels, over whole blocks in width: the last column is repeated before."""
    height, width = planes.shape[2:]
    return functional.avg_pool2d(_extended(planes, _up(height, 2), _up(width, 2 * _BLOCK)), 2)


def _doubled(planes: Tensor, size: torch.Size) -> Tensor:
    """Interpolated to twice the resolution, without what is beyond the image."""
    planes = planes[:, :, : _up(size[0], 2) // 2, : _up(size[1], 2) // 2]
    large = functional.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)
    return large[:, :, : size[0], : size[1]]


def _extended(planes: Tensor, height: int, width: int) -> Tensor:
    """The last row and column repeated."""
    below, beside = height - planes.shape[2], width - planes.shape[3]
    if not (below or beside):
        return planes
    return functional.pad(planes, (0, beside, 0, below), mode="replicate")


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
