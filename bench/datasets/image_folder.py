"""A folder of images, with one subfolder for each class."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from ..api.data import ImageData
from ..api.errors import BadData, BadParameter, closest
from ..api.shared.path_names import located, printable
from .image_files import Decoder, open_files
from .listing import class_folders, folders_in, images_below
from .validation import check_split


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png.

    Classes are numbered in alphabetical order of their folders, as torchvision's ImageFolder does
    it. Hidden files and folders (`.ipynb_checkpoints`, `._x.png`) and those that file managers make
    (`__MACOSX`, `@eaDir`) are left out, and no folder is read twice for a class, whatever links
    lead to it. Sets below 1 GiB are decoded into memory; larger ones are read on demand.

    Pixels are taken as they are stored, as torchvision does: a JPEG's EXIF orientation does not
    turn it. Of a file with several images the first is read; transparency is dropped.

    root: the folder that holds the two splits, relative to the suite's folder.
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

    version: ClassVar[str] = "2"

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
        root = located(self.root)
        name, other = (self.train, self.test) if split == "train" else (self.test, self.train)
        folder = _existing(root, name, split)
        classes = class_folders(folder)
        if (root / other).is_dir():
            _check_agreement(folder, classes, root / other)
        paths: list[str] = []
        targets: list[int] = []
        for number, found in enumerate(classes.values()):
            below = images_below(found)
            paths += below
            targets += [number] * len(below)
        decoder = Decoder(resize=self.size, crop=self.size, grayscale=self.grayscale)
        images, shape = open_files(folder, paths, decoder)
        labels = torch.tensor(targets, dtype=torch.int64)
        return ImageData(images, labels, tuple(classes), shape)


def _existing(root: Path, name: str, split: str) -> Path:
    if not root.exists():
        raise BadData(f"image folder {printable(root)} does not exist")
    if not root.is_dir():
        raise BadData(f"image folder {printable(root)} is not a folder")
    folder = root / name
    if folder.is_dir():
        return folder
    there = [printable(one.name) for one in folders_in(root)]
    content = f"it holds {', '.join(there[:10])}" if there else "it holds no folders"
    raise BadData(
        f"image folder {printable(root)} has no folder '{name}' for the {split} split"
        f"{closest(name, there) or ';'} {content}"
    )


def _check_agreement(folder: Path, classes: Mapping[str, Path], other: Path) -> None:
    for one in sorted({*classes} ^ {*class_folders(other)}):
        holder, lacking = (folder, other) if one in classes else (other, folder)
        raise BadData(
            f"class folder '{one}' is in {printable(holder)} but not in {printable(lacking)}"
        )
