"""Whether images and labels can be used: plain functions on whatever the user hands over."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ..api.data import Dataset, ImageData
from ..api.errors import BadData, errors_as

_SUM_TOLERANCE = 1e-3
Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def check_images(images: object, first: int = 0) -> None:
    """Check that images are a non-empty (N, C, H, W) floating-point tensor within [0, 1].

    first: what the first image is called, when they are a part of more.

    Raises: BadData, naming the first image that is at fault and its value.
    """
    if not isinstance(images, Tensor):
        raise BadData(f"images must be a torch.Tensor, not {type(images).__name__}")
    if images.dim() != 4:
        raise BadData(f"images must have shape (N, C, H, W), not {tuple(images.shape)}")
    if _channels_last(images):
        raise BadData(
            f"images look channel-last, {tuple(images.shape)}: (N, C, H, W) is needed; pass "
            "images.permute(0, 3, 1, 2)"
        )
    if images.numel() == 0:
        raise BadData(f"there are no images: their shape is {tuple(images.shape)}")
    if images.is_complex() or images.dtype == torch.bool:
        raise BadData(f"images must be floating point, not {images.dtype}")
    low, high = (float(one) for one in torch.aminmax(images))
    if not (math.isfinite(low) and math.isfinite(high)):
        index, value = _first(images, ~torch.isfinite(images))
        raise BadData(f"images must be finite: image {first + index} holds {value:g}")
    if low < 0.0 or high > 1.0:
        index, value = _first(images, (images < 0) | (images > 1))
        raise BadData(
            f"images must lie in [0, 1]: the range found is [{low:g}, {high:g}]"
            f"{_remedy(low, high)} (image {first + index} holds {value:.9g})"
        )
    if not images.is_floating_point():
        raise BadData(f"images must be floating point in [0, 1], not {images.dtype}; divide by 255")


def check_labels(labels: object, n_classes: int, count: int) -> None:
    """Check labels: (count,) integer classes below n_classes, or (count, n_classes) probabilities.

    Raises: BadData, naming the first label that is at fault and its index.
    """
    if not isinstance(labels, Tensor):
        raise BadData(f"labels must be a torch.Tensor, not {type(labels).__name__}")
    if labels.dim() not in (1, 2):
        raise BadData(f"labels must have shape (N,) or (N, K), not {tuple(labels.shape)}")
    if len(labels) != count:
        raise BadData(f"there are {len(labels)} labels for {count} images")
    if labels.dim() == 2:
        _check_probabilities(labels, n_classes)
        return
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise BadData(f"labels of shape (N,) must be integers, not {labels.dtype}")
    outside = (labels < 0) | (labels >= n_classes)
    if outside.any():
        index, value = _first(labels, outside)
        from_one = int(labels.min()) == 1 and int(labels.max()) == n_classes
        raise BadData(
            f"label {int(value)} at index {index} is out of range: there are {n_classes} classes "
            f"(0 to {n_classes - 1})" + ("; they count from 1: subtract 1" if from_one else "")
        )


def check_split(split: str) -> None:
    """Check that a split is one that every dataset has.

    Raises: BadData.
    """
    if split not in ("train", "test"):
        raise BadData(f"there is no split '{split}': the splits are 'train' and 'test'")


def _check_probabilities(labels: Tensor, n_classes: int) -> None:
    if labels.shape[1] != n_classes:
        raise BadData(f"labels have {labels.shape[1]} columns, but there are {n_classes} classes")
    if not labels.is_floating_point():
        raise BadData(
            f"labels of shape (N, K) are probabilities and must be floating point, "
            f"not {labels.dtype}"
        )
    bad = ~(torch.isfinite(labels) & (labels >= 0))
    if bad.any():
        index, value = _first(labels, bad)
        raise BadData(f"labels must be probabilities: the row at index {index} holds {value:g}")
    off = (labels.double().sum(dim=1) - 1).abs() > _SUM_TOLERANCE
    if off.any():
        index, total = _first(labels.double().sum(dim=1), off)
        raise BadData(f"labels must sum to 1: the row at index {index} sums to {total:g}")


def _channels_last(images: Tensor) -> bool:
    """Whether the last axis holds the channels: colours there, and no such number in front."""
    _, first, second, last = images.shape
    colours = last in (3, 4) or (last == 1 and first == second)
    return colours and min(first, second) >= 8


def _remedy(low: float, high: float) -> str:
    if low < 0.0:
        return "; hand them over before normalisation, which is the model's own part"
    return "; divide by 255" if high <= 255.0 else ""


def _first(values: Tensor, bad: Tensor) -> tuple[int, float]:
    """Index along the first axis, and value, of the first entry that is bad."""
    where = int(bad.flatten().to(torch.uint8).argmax())
    return where // bad[0].numel(), float(values.flatten()[where])


def load_split(dataset: Dataset, name: str, split: Split) -> ImageData:
    """Read a split, whatever goes wrong in a dataset plugin.

    Raises: BadData, or what the plugin raises of our own errors.
    """
    with errors_as(BadData, f"dataset '{name}', {split} split"):
        return dataset.load(split)


def check_training(train: ImageData) -> None:
    """Look at the labels, and at a sample of the images, that a dataset brings to train on.

    Raises: BadData.
    """
    check_images(train.images.read(torch.arange(min(len(train), 256))))
    check_labels(train.labels, train.n_classes, len(train))


def check_splits(train: ImageData, test: ImageData) -> None:
    """Look at what a dataset plugin brings, the images that will be attacked aside.

    Raises: BadData.
    """
    if (train.shape, train.class_names) != (test.shape, test.class_names):
        raise BadData("the training and the test split differ in image shape or classes")
    check_labels(test.labels, test.n_classes, len(test))
    if test.labels.dim() != 1:
        raise BadData("labels of the test split must be classes (N,), not probabilities")
    check_training(train)
