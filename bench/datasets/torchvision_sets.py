"""The public datasets that torchvision knows how to fetch and read."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..api.data import ImageData
from ..api.errors import BadData, BadParameter, reason
from ..api.paths import cache_folder
from ..api.shared.path_names import located
from ..api.shared.safe_text import short
from .image_files import Decoder, open_files
from .in_memory import in_memory
from .validation import check_split

Split = Literal["train", "test"]


@dataclass(frozen=True)
class _Downloadable(ABC):
    """What the datasets have in common that torchvision downloads; its classes have their names.

    root: where the files are, relative to the suite's folder; by default `datasets` in the user's
        cache folder.
    download: whether files that are missing there are fetched.
    """

    root: str = ""
    download: bool = True

    version: ClassVar[str] = "1"

    def load(self, split: Split) -> ImageData:
        """Read one split into memory, downloading it first if need be.

        Raises: BadData when it is not there and cannot be downloaded, or is damaged.
        """
        check_split(split)
        folder = located(self.root) if self.root else cache_folder() / "datasets"
        found = _open(type(self).__name__, folder, self.download, self._which(split))
        return in_memory(*self._parts(found))

    def _which(self, split: Split) -> Mapping[str, Any]:
        return {"train": split == "train"}

    @abstractmethod
    def _parts(self, found: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Pixels (N, C, H, W) uint8, labels (N,), class names."""


@dataclass(frozen=True)
class MNIST(_Downloadable):
    """MNIST: 70,000 handwritten digits, 28x28 grey (LeCun, Bottou, Bengio and Haffner, 1998)."""

    def _parts(self, found: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        return found.data.unsqueeze(1), found.targets, tuple(found.classes)


@dataclass(frozen=True)
class FashionMNIST(MNIST):
    """Fashion-MNIST: 70,000 articles of clothing, 28x28 grey (arXiv:1708.07747)."""


@dataclass(frozen=True)
class CIFAR10(_Downloadable):
    """CIFAR-10: 60,000 photographs, 32x32 colour, 10 classes (Krizhevsky, 2009)."""

    def _parts(self, found: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        pixels = np.ascontiguousarray(found.data.transpose(0, 3, 1, 2))
        return torch.from_numpy(pixels), torch.tensor(found.targets), tuple(found.classes)


@dataclass(frozen=True)
class CIFAR100(CIFAR10):
    """CIFAR-100: 60,000 photographs, 32x32 colour, 100 fine classes (Krizhevsky, 2009)."""


@dataclass(frozen=True)
class SVHN(_Downloadable):
    """SVHN: 99,289 house-number digits, 32x32 colour, cropped (Netzer et al., 2011).

    The `extra` images belong to neither split.
    """

    def _which(self, split: Split) -> Mapping[str, Any]:
        return {"split": split}

    def _parts(self, found: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        pixels = np.ascontiguousarray(found.data)
        names = tuple(str(digit) for digit in range(10))
        return torch.from_numpy(pixels), torch.from_numpy(found.labels), names


@dataclass(frozen=True)
class ImageNet:
    """ImageNet 2012: 1,281,167 training and 50,000 validation photographs, 1,000 classes.

    Source: arXiv:1409.0575. The archives must be fetched by hand, after registration; torchvision
    unpacks them on first use. Its validation images are the test split. Files are read on demand:
    the shorter side is scaled to `resize` pixels and the central `size` x `size` square kept.

    root: the folder of the archives, relative to the suite's; by default `datasets/imagenet` in the
        user's cache folder.

    Raises: BadParameter.
    """

    root: str = ""
    size: int = 224
    resize: int = 256

    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize:
            raise BadParameter(
                f"imagenet: size = {self.size} must lie between 1 and resize = {self.resize}"
            )

    def load(self, split: Split) -> ImageData:
        """List one split's files.

        Raises: BadData when neither the archives nor the unpacked files are there.
        """
        check_split(split)
        own = cache_folder() / "datasets" / "imagenet"
        folder = located(self.root) if self.root else own
        found = _open_imagenet(folder, split)
        files = Path(found.split_folder)
        paths = [str(Path(path).relative_to(files)) for path, _ in found.samples]
        images, shape = open_files(files, paths, Decoder(resize=self.resize, crop=self.size))
        names = tuple(", ".join(synonyms) for synonyms in found.classes)
        return ImageData(images, torch.tensor(found.targets, dtype=torch.int64), names, shape)


def _open(name: str, folder: Path, download: bool, which: Mapping[str, Any]) -> Any:
    """Open a torchvision dataset; only when that fails, fetch it, one process at a time."""
    from filelock import FileLock
    from torchvision import datasets

    kind = getattr(datasets, name)
    try:
        return _quietly(kind, folder, download=False, **which)
    except Exception as error:  # torchvision lets through what its parsers raise
        if not download:
            raise BadData(
                f"{name} cannot be read from {folder}: {short(reason(error))}; "
                f"set download = true, or root to the folder that holds it"
            ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            return _quietly(kind, folder, download=True, **which)
    except Exception as error:  # as above, and whatever the network does
        raise BadData(
            f"{name} is not in {folder} and cannot be downloaded: {short(reason(error))}; "
            f"check the network, delete {name} there if it is damaged, or set root to a folder "
            "that holds it"
        ) from error


def _quietly(kind: Any, folder: Path, **options: Any) -> Any:
    with warnings.catch_warnings():
        # What old files and torchvision's own code are warned of is nothing a user can act on:
        # numpy 2.4 finds CIFAR's pickled flags badly typed, Python 3.12 the way it unpacks them.
        warnings.simplefilter("ignore")
        return kind(str(folder), **options)


def _open_imagenet(folder: Path, split: Split) -> Any:
    from torchvision import datasets

    part = "train" if split == "train" else "val"
    try:
        return _quietly(datasets.ImageNet, folder, split=part)
    except Exception as error:  # as in _open
        raise BadData(
            f"ImageNet cannot be read from {folder}: {short(reason(error))}; "
            "register at image-net.org and put ILSVRC2012_devkit_t12.tar.gz and "
            f"ILSVRC2012_img_{part}.tar there, or set root to the folder that holds them"
        ) from error
