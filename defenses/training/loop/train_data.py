"""The examples of a training run: split, held on the device where they fit, read in batches."""

import math

import torch
from torch import Tensor

from ....bench.api.data import ImageData
from ....bench.api.errors import BadData

HELD_BYTES = 4 * 2**30
CHUNK = 1024


class Examples:
    """Some of a dataset's examples, in memory on the device unless they are too many.

    indices: (n,) int64, which of the dataset's. Images with 256 grey levels are held as bytes,
    which gives the very same numbers back. More than HELD_BYTES are read again for each batch.
    """

    def __init__(self, data: ImageData, indices: Tensor, device: torch.device) -> None:
        self._data = data
        self._indices = indices
        self._device = device
        self._pixels = self._keep()
        self._home = torch.device("cpu") if self._pixels is None else device
        self._labels = data.labels[indices].to(self._home)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def home(self) -> torch.device:
        """Where the rows asked for should be."""
        return self._home

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) -> images (n, C, H, W) in [0, 1] and labels (n,) or (n, K), on the device.

        The images may be changed in place.
        """
        labels = self._labels[rows].to(self._device, non_blocking=True)
        if self._pixels is None:
            images = self._data.images.read(self._indices[rows])
            return images.to(self._device, non_blocking=True), labels
        pixels = self._pixels[rows]
        return pixels.float().div_(255.0) if pixels.dtype == torch.uint8 else pixels, labels

    def _keep(self) -> Tensor | None:
        """All images: bytes where they lose nothing, else floats; None when they are too many."""
        shape = (len(self), *self._data.shape)
        size = torch.Size(shape).numel()
        if size > HELD_BYTES:
            return None
        pixels = torch.empty(shape, dtype=torch.uint8)
        for part in torch.arange(len(self)).tensor_split(math.ceil(len(self) / CHUNK)):
            images = self._data.images.read(self._indices[part])
            if pixels.dtype == torch.uint8:
                grey = (images * 255.0).round().to(torch.uint8)
                if torch.equal(grey.float() / 255.0, images):
                    images = grey
                elif 4 * size > HELD_BYTES:
                    return None
                else:
                    pixels = pixels.float() / 255.0
            pixels[part] = images
        return pixels.to(self._device)


def split(
    data: ImageData, share: float, generator: torch.Generator, device: torch.device
) -> tuple[Examples, Examples | None]:
    """Split at random into a part to train on and a share to validate on (None for a share of 0).

    Raises: BadData when nothing would be left to train on.
    """
    held_out = max(1, round(share * len(data))) if share else 0
    if len(data) <= held_out:
        raise BadData(
            f"{len(data)} images are too few to train on with validation_share = {share}: "
            f"{held_out} would be held out"
        )
    order = torch.randperm(len(data), generator=generator)
    training = Examples(data, order[held_out:], device)
    return training, Examples(data, order[:held_out], device) if held_out else None
