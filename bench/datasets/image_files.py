"""Images in files, one a file: decoded into memory when they fit, else read on demand."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..api.data import Images
from ..api.errors import BadData, reason
from ..api.shared.file_checks import check_regular
from ..api.shared.path_names import printable
from ..api.shared.safe_text import short
from .in_memory import TensorImages

IN_MEMORY_BYTES = 2**30
_CHUNK = 16
_LARGE_FILE_BYTES = 16384
_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


@dataclass(frozen=True)
class Decoder:
    """How a file becomes pixels.

    resize: what the shorter side is scaled to; crop: the side of the central square that is kept.
    None for both leaves images as they are. Transparency is dropped, of several images in a file
    the first is read, and orientation in EXIF is not applied, as torchvision does.
    """

    resize: int | None = None
    crop: int | None = None
    grayscale: bool = False

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Decode one file: (C, H, W).

        Raises: BadData, naming the file, when it is not a sound image of 8 bits a channel, or has
            more pixels than Pillow takes for harmless (89 million).
        """
        try:
            return self._decode(path)
        except BadData:
            raise
        except Exception as error:  # what decoders raise on damaged files is not documented
            raise _unreadable(path, error) from error

    def _decode(self, path: Path) -> NDArray[np.uint8]:
        from PIL import Image
        from torchvision.transforms import functional

        check_regular(path)
        with Image.open(path) as file:
            _check_header(path, file)
            image: Any = file.convert("RGBA") if "transparency" in file.info else file
            image = image.convert("L" if self.grayscale else "RGB")
        if self.resize is not None:
            image = functional.resize(image, [self.resize])
        if self.crop is not None:
            image = functional.center_crop(image, [self.crop])
        pixels = np.asarray(image, dtype=np.uint8)
        return pixels[None] if self.grayscale else pixels.transpose(2, 0, 1)


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images read from files each time they are asked for. paths are relative to root.

    workers: how many threads decode.
    """

    root: Path
    paths: tuple[str, ...]
    decoder: Decoder
    shape: tuple[int, int, int]
    workers: int = 1

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Tensor) -> Tensor:
        """(n,) int64 -> (n, C, H, W) float32 in [0, 1].

        Raises: BadData when a file cannot be read or has another size than the first.
        """
        paths = [self.paths[index] for index in indices.tolist()]
        return self.decode(paths).to(torch.float32).div_(255.0)

    def decode(self, paths: Sequence[str]) -> Tensor:
        """Decode files: (n, C, H, W) uint8."""
        pixels = np.empty((len(paths), *self.shape), dtype=np.uint8)

        def fill(start: int) -> None:
            for place, path in enumerate(paths[start : start + _CHUNK], start):
                pixels[place] = self._expected(self.root / path)

        starts = range(0, len(paths), _CHUNK)
        if self.workers == 1:
            for start in starts:
                fill(start)
            return torch.from_numpy(pixels)
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                list(pool.map(fill, starts))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return torch.from_numpy(pixels)

    def fingerprint(self) -> str:
        """SHA-256 of the decoder's settings and each file's relative path and size in bytes.

        The files themselves are not read: a change that keeps a file's size goes unnoticed.

        Raises: BadData when a file is gone.
        """
        digest = hashlib.sha256(repr((self.decoder, self.shape)).encode())
        for path in self.paths:
            try:
                size = (self.root / path).stat().st_size
            except OSError as error:
                raise _unreadable(self.root / path, error) from error
            digest.update(f"{path}\0{size}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _expected(self, path: Path) -> NDArray[np.uint8]:
        pixels = self.decoder(path)
        if pixels.shape != self.shape:
            raise _different_size(path, pixels.shape[1:], self.root / self.paths[0], self.shape[1:])
        return pixels


def open_files(
    root: Path, paths: Sequence[str], decoder: Decoder
) -> tuple[Images, tuple[int, int, int]]:
    """Open images, all of the first one's shape, which is returned with them: (C, H, W).

    Those that take less than IN_MEMORY_BYTES when decoded are decoded now, and named by their
    pixels; of more, only the headers are looked at, and only when sizes may differ.

    Raises: BadData, naming the first file that cannot be read or differs in size.
    """
    channels, height, width = decoder(root / paths[0]).shape
    # Small files decode faster than threads can hand Python's lock to one another.
    large = (root / paths[0]).stat().st_size > _LARGE_FILE_BYTES
    workers = min(8, os.cpu_count() or 1) if large else 1
    files = FileImages(root, tuple(paths), decoder, (channels, height, width), workers)
    if len(paths) * channels * height * width < IN_MEMORY_BYTES:
        return TensorImages(files.decode(paths)), files.shape
    if decoder.crop is None:
        _check_sizes(files)
    return files, files.shape


def _check_header(path: Path, file: Any) -> None:
    """Refuse what would not come out as it is stored, before it is decoded. Raises: BadData."""
    from PIL import Image

    shown, (width, height) = printable(path), file.size
    if file.mode not in _EIGHT_BIT_MODES:
        raise BadData(f"image {shown} has mode {file.mode}: 8 bits a channel are needed")
    if any(";16" in str(tile) for tile in getattr(file, "tile", ())):  # Pillow drops the low byte
        raise BadData(f"image {shown} has 16 bits a channel: 8 bits a channel are needed")
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise BadData(f"image {shown} is {width}x{height} pixels: at most {most:,} can be read")


def _unreadable(path: Path, error: BaseException) -> BadData:
    return BadData(f"image {printable(path)} cannot be read: {short(reason(error))}")


def _different_size(
    path: Path, found: Sequence[int], first: Path, expected: Sequence[int]
) -> BadData:
    return BadData(
        f"image {printable(path)} is {found[1]}x{found[0]} pixels, but {printable(first)} is "
        f"{expected[1]}x{expected[0]}; set size to bring all images to one size"
    )


def _check_sizes(files: FileImages) -> None:
    from PIL import Image

    for name in files.paths:
        path = files.root / name
        try:
            check_regular(path)
            with Image.open(path) as image:
                width, height = image.size
        except Exception as error:  # as in Decoder
            raise _unreadable(path, error) from error
        if (height, width) != files.shape[1:]:
            first = files.root / files.paths[0]
            raise _different_size(path, (height, width), first, files.shape[1:])
