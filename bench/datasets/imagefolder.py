"""A folder of images, with one subfolder for each class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from ..errors import BadData, BadParameter, closest
from ..protocols import ImageData
from .checks import check_split
from .files import Decoder, one_line, open_files


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png.

    Classes are numbered in alphabetical order of their folders, as torchvision's ImageFolder does
    it. Sets below 1 GiB are decoded into memory; larger ones are read on demand.

    root: the folder that holds the two splits.
    size: None when all images have one size; else the shorter side is scaled to `size` pixels and
        the central square kept.
    grayscale: one channel instead of three.
    train, test: the names of the two splits' folders. Their class folders must agree; a split that
        is never loaded need not exist.

    Raises: BadParameter.
    """

    root: str
    size: int | None = None
    grayscale: bool = False
    train: str = "train"
    test: str = "test"

    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        if not self.root:
            raise BadParameter("imagefolder: root = '' must name the folder that holds the images")
        if self.size is not None and self.size < 1:
            raise BadParameter(f"imagefolder: size = {self.size} must be at least 1")

    def load(self, split: Literal["train", "test"]) -> ImageData:
        """Read one split.

        Raises: BadData, naming the path, when a folder is missing, unreadable or without classes,
            the splits' classes differ, or an image is damaged or of another size than the first.
        """
        check_split(split)
        root = Path(self.root).expanduser()
        name, other = (self.train, self.test) if split == "train" else (self.test, self.train)
        folder = _existing(root, name, split)
        classes = _class_folders(folder)
        if (root / other).is_dir():
            _check_agreement(folder, classes, root / other)
        found = _scan(folder)
        paths = [str(Path(path).relative_to(folder)) for path, _ in found.samples]
        decoder = Decoder(resize=self.size, crop=self.size, grayscale=self.grayscale)
        images, shape = open_files(folder, paths, decoder)
        labels = torch.tensor(found.targets, dtype=torch.int64)
        return ImageData(images, labels, tuple(found.classes), shape)


def _existing(root: Path, name: str, split: str) -> Path:
    if not root.exists():
        raise BadData(f"image folder {root} does not exist")
    if not root.is_dir():
        raise BadData(f"image folder {root} is not a folder")
    folder = root / name
    if folder.is_dir():
        return folder
    there = [one.name for one in _listing(root)]
    holds = f"it holds {', '.join(there[:10])}" if there else "it holds no folders"
    raise BadData(
        f"image folder {root} has no folder '{name}' for the {split} split"
        f"{closest(name, there) or ';'} {holds}"
    )


def _class_folders(folder: Path) -> tuple[str, ...]:
    names = tuple(one.name for one in _listing(folder))
    if not names:
        raise BadData(f"image folder {folder} holds no class folders")
    return names


def _check_agreement(folder: Path, classes: tuple[str, ...], other: Path) -> None:
    for one in sorted(set(classes) ^ set(_class_folders(other))):
        holder, lacking = (folder, other) if one in classes else (other, folder)
        raise BadData(f"class folder '{one}' is in {holder} but not in {lacking}")


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir())
    except OSError as error:
        raise BadData(f"image folder {folder} cannot be read: {one_line(error)}") from error


def _scan(folder: Path) -> Any:
    from torchvision import datasets

    try:
        return datasets.ImageFolder(str(folder))
    except OSError as error:
        raise BadData(f"image folder {folder}: {one_line(error)}") from error
