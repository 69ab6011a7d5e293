"""Images held in memory, and what can be done with any images: select, name, summarise."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..api.data import ImageData, Images
from ..api.errors import BadData, BadParameter
from .validation import check_images, check_labels

_BLOCK = 512


@dataclass(frozen=True, eq=False)
class TensorImages:
    """Images in one tensor. data: (N, C, H, W) uint8, read as value / 255, or float in [0, 1].

    What is read lies on the device that holds the data.
    """

    data: Tensor

    def __len__(self) -> int:
        return len(self.data)

    def read(self, indices: Tensor) -> Tensor:
        """(n,) int64 -> (n, C, H, W) float32 in [0, 1]."""
        chosen = self.data[indices.to(self.data.device)]
        pixels = chosen.to(torch.float32)
        return pixels.div_(255.0) if chosen.dtype == torch.uint8 else pixels

    def fingerprint(self) -> str:
        """SHA-256 of the element type, the shape and the bytes."""
        return tensor_hash(self.data)


@dataclass(frozen=True, eq=False)
class SelectedImages:
    """Some of other images, in a given order, read when asked for. indices: (n,) int64."""

    base: Images
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Tensor) -> Tensor:
        """(n,) int64 -> (n, C, H, W) float32 in [0, 1]."""
        return self.base.read(self.indices[indices.to(self.indices.device)])

    def fingerprint(self) -> str:
        """SHA-256 of the fingerprint of what is selected from, and the indices."""
        return _sha256(self.base.fingerprint(), tensor_hash(self.indices))


def in_memory(
    images: Tensor, labels: Tensor, class_names: Sequence[str], masks: Tensor | None = None
) -> ImageData:
    """Make a dataset of tensors. images: (N, C, H, W) uint8, or float in [0, 1].

    labels: (N,) classes or (N, K) probabilities. masks: (N, H, W) bool, where the objects are.

    Raises: BadData, as check_images and check_labels.

    >>> import torch
    >>> from quintain.bench.datasets.in_memory import in_memory
    >>> pixels = torch.tensor([[[[0, 255]]], [[[51, 102]]]], dtype=torch.uint8)
    >>> data = in_memory(pixels, torch.tensor([0, 1]), ["cat", "dog"])
    >>> len(data), data.shape, data.images.read(torch.tensor([1]))
    (2, (1, 1, 2), tensor([[[[0.2000, 0.4000]]]]))
    """
    if images.dtype != torch.uint8:
        check_images(images)
    elif images.dim() != 4 or images.numel() == 0:
        raise BadData(
            f"images must have shape (N, C, H, W), none of them 0, not {tuple(images.shape)}"
        )
    check_labels(labels, len(class_names), len(images))
    _, channels, height, width = images.shape
    kept = labels.to(torch.int64 if labels.dim() == 1 else torch.float32)
    shape = (channels, height, width)
    return ImageData(TensorImages(images), kept, tuple(class_names), shape, masks)


def select(data: ImageData, indices: Tensor) -> ImageData:
    """Some of a dataset, in the order of the indices, (n,) int64. Images are read when asked for.

    Raises: BadData when an index is out of range or they are not integers.
    """
    if indices.dim() != 1 or indices.dtype != torch.int64:
        raise BadData(
            f"indices must be (n,) int64, not {tuple(indices.shape)} of type {indices.dtype}"
        )
    outside = (indices < 0) | (indices >= len(data))
    if outside.any():
        wrong = int(indices[outside][0])
        raise BadData(f"index {wrong} is out of range: there are {len(data)} images")
    indices = indices.cpu()
    base = data.images
    if isinstance(base, SelectedImages):
        images = SelectedImages(base.base, base.indices[indices])
    else:
        images = SelectedImages(base, indices)
    labels = data.labels[indices.to(data.labels.device)]
    masks = None if data.masks is None else data.masks[indices]
    return ImageData(images, labels, data.class_names, data.shape, masks)


def drawn_rows(total: int, count: int, seed: int) -> Tensor:
    """(count,) int64: which of so many examples a seed draws, in ascending order.

    Raises: BadParameter where there are not so many.
    """
    if count > total:
        raise BadParameter(f"n_examples = {count}, but the test split has {total} images")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return order[:count].sort().values


def fingerprint(data: ImageData) -> str:
    """Name everything in a dataset that can change a result: images, labels, class names."""
    return _sha256(data.images.fingerprint(), tensor_hash(data.labels), *data.class_names)


def channel_statistics(
    data: ImageData, limit: int = 10_000
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, over all pixels of at most `limit` images.

    The images are spread evenly over the dataset, which may be sorted by class. The deviation is
    the population's; a channel that never varies gets 1, so that dividing by it is harmless.

    Raises: BadData when there are no images.

    >>> import torch
    >>> from quintain.bench.datasets.in_memory import channel_statistics, in_memory
    >>> pixels = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    >>> channel_statistics(in_memory(pixels, torch.tensor([0]), ["cat"]))
    ((0.5,), (0.5,))
    """
    count = min(len(data), limit)
    if count < 1:
        raise BadData("no images to take channel statistics of")
    indices = torch.arange(count, dtype=torch.int64) * len(data) // count
    channels, height, width = data.shape
    total = torch.zeros(channels, dtype=torch.float64)
    squares = torch.zeros(channels, dtype=torch.float64)
    for start in range(0, count, _BLOCK):
        block = data.images.read(indices[start : start + _BLOCK])
        pixels = block.to("cpu", torch.float64)
        total += pixels.sum(dim=(0, 2, 3))
        squares += pixels.square().sum(dim=(0, 2, 3))
    pixels_each = count * height * width
    mean = total / pixels_each
    std = (squares / pixels_each - mean.square()).clamp_min(0).sqrt()
    std = torch.where(std > 1e-6, std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 of a tensor's element type, shape and bytes, wherever it lies."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().flatten()
    digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sha256(*parts: str) -> str:
    # Each part ends in a byte that UTF-8 never uses, so that parts cannot run into each other.
    return hashlib.sha256(b"".join(part.encode() + b"\xff" for part in parts)).hexdigest()
