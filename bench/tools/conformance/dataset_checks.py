"""What a dataset must keep to. Each check is a function whose first line says what it demands."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from ...api import registry
from ...api.data import Dataset, ImageData
from ...datasets.validation import SPLITS, check_splits, check_training, load_split
from .report import Failed

Split = Literal["train", "test"]
_SOME = 64
_LOOKED_AT = 2000  # images of each split among which the same are looked for
_SAME = 0.01  # share of test images that may be training images: real datasets hold a few


@dataclass
class DatasetTrial:
    """A dataset plugin with its default settings. file: where its code is."""

    name: str
    file: str

    def build(self) -> Dataset:
        """The plugin."""
        found: Dataset = registry.build("datasets", self.name)
        return found

    @cached_property
    def splits(self) -> dict[Split, ImageData]:
        """Both, loaded and checked as a suite does."""
        return {split: load_split(self.build(), self.name, split) for split in SPLITS}

    def some(self, split: Split, most: int = _SOME) -> torch.Tensor:
        """Rows spread over a split."""
        count = min(most, len(self.splits[split]))
        return torch.arange(count) * len(self.splits[split]) // count


def loads(trial: DatasetTrial) -> None:
    """With its default settings it gives a training and a test split, of one shape and classes."""
    check_splits(trial.splits["train"], trial.splits["test"])
    check_training(trial.splits["train"])


def images(trial: DatasetTrial) -> None:
    """Images are (n, C, H, W) float32 in [0, 1], and not all alike."""
    for split, data in trial.splits.items():
        x = data.images.read(trial.some(split))
        if tuple(x.shape[1:]) != data.shape or x.dtype != torch.float32:
            raise Failed(f"{split}: {tuple(x.shape)} of {x.dtype}, expected (n, *{data.shape})")
        if not x.isfinite().all() or x.min() < 0 or x.max() > 1:
            raise Failed(f"{split}: values from {float(x.min()):g} to {float(x.max()):g}")
        if len(x) > 1 and bool((x == x[:1]).all()):
            raise Failed(f"{split}: all images are the same")


def labels(trial: DatasetTrial) -> None:
    """Each image has a label; training images are of two classes at least; class names differ."""
    for split, data in trial.splits.items():
        if len(data.labels) != len(data):
            raise Failed(f"{split}: {len(data.labels)} labels for {len(data)} images")
    data = trial.splits["train"]
    if data.labels.dim() == 1 and len(data.labels.unique()) < 2:
        raise Failed("all training images are of one class")
    if len(set(data.class_names)) < len(data.class_names):
        raise Failed(f"two classes are called the same: {', '.join(data.class_names)}")


def order(trial: DatasetTrial) -> None:
    """Images are read by their indices, in any order, and the same again."""
    for split, data in trial.splits.items():
        rows = trial.some(split)
        x = data.images.read(rows)
        if not torch.equal(data.images.read(rows.flip(0)), x.flip(0)):
            raise Failed(f"{split}: read from the last to the first, images differ")
        if not torch.equal(data.images.read(rows[-1:]), x[-1:]):
            raise Failed(f"{split}: read alone, image {int(rows[-1])} differs")


def repeatable(trial: DatasetTrial) -> None:
    """Loaded again it is the same, by images, labels and fingerprint."""
    for split, data in trial.splits.items():
        again = trial.build().load(split)
        rows = trial.some(split)
        if not torch.equal(again.images.read(rows), data.images.read(rows)):
            raise Failed(f"{split}: loaded again, images differ")
        if not torch.equal(again.labels, data.labels):
            raise Failed(f"{split}: loaded again, labels differ")
        if again.images.fingerprint() != data.images.fingerprint():
            raise Failed(f"{split}: loaded again, the fingerprint differs")


def apart(trial: DatasetTrial) -> None:
    """Test images are no training images, and the splits have other fingerprints."""
    one, other = trial.splits["train"], trial.splits["test"]
    if one.images.fingerprint() == other.images.fingerprint():
        raise Failed("both splits have one fingerprint")
    known = {_hash(image) for image in one.images.read(trial.some("train", _LOOKED_AT))}
    seen = [_hash(image) in known for image in other.images.read(trial.some("test", _LOOKED_AT))]
    if sum(seen) > _SAME * len(seen):
        raise Failed(f"{sum(seen)} of {len(seen)} test images are among the training images")


def _hash(image: torch.Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).digest()


CHECKS = (loads, images, labels, order, repeatable, apart)


def trial_of(name: str, source: str) -> DatasetTrial:
    """What the checks look at."""
    return DatasetTrial(name, source if Path(source).is_file() else "")
