"""What people hand to `evaluate`, made into what the harness works with, or refused in one line."""

import operator
from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..api.errors import BadData, BadParameter

Batches = Iterable[Any]  # a DataLoader, a Dataset, or (images, labels) one after another


def images_and_labels(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Return images (N, C, H, W) and labels (N,), as tensors.

    images: a tensor, an array, a list of these; or, without labels, a DataLoader, a Dataset or a
        list of (images, labels), which is read to its end into memory, in its order.
    labels: (N,) or (N, 1) classes, or (N, K) one-hot; a tensor, an array or a list.

    Raises: BadData, naming what cannot be used.
    """
    if labels is None or isinstance(labels, str):
        given = "" if labels is None else f"; an attack is named as attack={labels!r}"
        if not _is_batches(images):
            raise BadData(f"labels are missing: pass them, or a DataLoader as images{given}")
        if given:
            raise BadData(f"labels = {labels!r}: they come with the images of a DataLoader{given}")
        images, labels = _gathered(images)
    elif isinstance(images, (DataLoader, Dataset)):
        raise BadData(f"a {type(images).__name__} brings its own labels: leave out labels")
    return as_tensor("images", images), as_classes("labels", labels)


def as_tensor(name: str, value: Any) -> Tensor:
    """Return a tensor, an array, a number or a list of these as a tensor.

    Raises: BadData when it is none, or its parts differ in shape.
    """
    if isinstance(value, Tensor):
        return value
    try:
        if isinstance(value, (list, tuple)) and any(isinstance(one, Tensor) for one in value):
            return torch.stack([as_tensor(name, one) for one in value])
        array = np.asarray(value)
        if array.dtype == object or not array.ndim:
            raise TypeError
        return torch.from_numpy(array.copy() if _cannot_share(array) else array)
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        raise BadData(
            f"{name} must be a torch.Tensor, a NumPy array, or a list of equal shapes, not {kind}"
        ) from None


def as_classes(name: str, value: Any) -> Tensor:
    """Return classes (N,): of (N,), (N, 1), or one-hot rows (N, K). Others are left to the checks.

    Raises: BadData for rows that are not one-hot: robustness is that of a class.
    """
    classes = as_tensor(name, value)
    if classes.dim() != 2:
        return classes
    if classes.shape[1] == 1:
        return classes[:, 0]
    one_hot = ((classes == 1).sum(dim=1) == 1) & ((classes != 0).sum(dim=1) == 1)
    if not bool(one_hot.all()):
        row = int((~one_hot).nonzero()[0])
        raise BadData(
            f"{name} of shape (N, K) must be one-hot, and the row at index {row} is not: "
            f"robustness is that of a class; pass {name}.argmax(1)"
        )
    return classes.to(torch.uint8).argmax(dim=1)


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return an integer of any library as Python's.

    Raises: BadParameter when it is none, or out of range.
    """
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        expected = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise BadParameter(f"{name} must be an integer {expected}, not {value!r}")
    return number


def _cannot_share(array: Any) -> bool:
    """Whether torch would refuse this array's memory, or warn of it."""
    return not array.flags.writeable or any(step < 0 for step in array.strides)


def _is_batches(images: Any) -> bool:
    """Whether it holds images with labels: not a tensor, an array or a list of images."""
    if isinstance(images, (Tensor, np.ndarray, str)):
        return False
    if isinstance(images, (list, tuple)):
        return bool(images) and all(isinstance(one, tuple) for one in images)
    return isinstance(images, (DataLoader, Dataset)) or hasattr(images, "__iter__")


def _gathered(batches: Batches) -> tuple[Tensor, Tensor]:
    """All images and labels of some batches, or of single examples, in their order."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for number, batch in enumerate(_each(batches)):
        if not isinstance(batch, (list, tuple)) or len(batch) < 2:
            raise BadData(
                f"batch {number} of the images is a {type(batch).__name__}: (images, labels) "
                "is needed"
            )
        x, y = batch[:2]
        x = as_tensor("images", x)
        alone = x.dim() == 3
        y = torch.as_tensor(y) if alone else as_classes("labels", y)
        images.append(x[None] if alone else x)
        labels.append(as_classes("labels", y[None]) if alone else y)
    if not images:
        raise BadData("there are no images: the loader gave no batch")
    try:
        return torch.cat(images), torch.cat(labels)
    except RuntimeError:
        raise BadData("the images of the loader have different shapes") from None


def _each(batches: Batches) -> Iterator[Any]:
    """One after another; a Dataset has a length and is read by index."""
    if isinstance(batches, Dataset) and hasattr(batches, "__len__"):
        dataset = cast(Any, batches)
        return (dataset[number] for number in range(len(dataset)))
    return iter(batches)
