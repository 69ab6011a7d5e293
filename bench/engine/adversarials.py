"""Where adversarial examples that held are kept: in memory, or in a file that grows."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from torch import Tensor

from ..store.atomic import write_atomically


class AdversarialStore(Protocol):
    """Takes adversarial examples as they come."""

    def keep(self, row: int, point: int, x_adv: Tensor) -> None:
        """Take x_adv, (C, H, W) on the CPU, of one example at one point of the grid."""


@dataclass(frozen=True)
class InMemoryStore:
    """Adversarial examples in memory. images: row -> grid point -> (C, H, W)."""

    images: dict[int, dict[int, Tensor]] = field(default_factory=dict)

    def keep(self, row: int, point: int, x_adv: Tensor) -> None:
        """Take one."""
        self.images.setdefault(row, {})[point] = x_adv


class DiskStore:
    """Adversarial examples in a temporary file: memory does not grow with their number.

    pixels: the file, empty. shape: (C, H, W).
    """

    def __init__(self, pixels: BinaryIO, shape: tuple[int, int, int]) -> None:
        self._pixels = pixels
        self._shape = shape
        self._places: list[tuple[int, int]] = []

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, shape: tuple[int, int, int]) -> Iterator["DiskStore"]:
        """Open one whose temporary file lies in a folder until it is closed."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as pixels:
            yield cls(pixels, shape)

    def keep(self, row: int, point: int, x_adv: Tensor) -> None:
        """Take one."""
        self._pixels.write(x_adv.numpy().astype("<f4").tobytes())
        self._places.append((row, point))

    def save(self, path: Path) -> None:
        """Write them as safetensors: `x_adv` (n, C, H, W), `row` (n,), `point` (n,).

        The package's own writer would want all of them in memory.
        """
        count, size = len(self._places), 4 * int(np.prod(self._shape))
        parts = {
            "row": ("I64", [count], 8 * count),
            "point": ("I64", [count], 8 * count),
            "x_adv": ("F32", [count, *self._shape], size * count),
        }
        header, end = {}, 0
        for name, (kind, shape, length) in parts.items():
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + length]}
            end += length
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        places = np.array(self._places, dtype="<i8").reshape(-1, 2)

        def write(at: Path) -> None:
            self._pixels.seek(0)
            with at.open("wb") as file:
                file.write(len(text).to_bytes(8, "little") + text)
                file.write(places[:, 0].tobytes() + places[:, 1].tobytes())
                shutil.copyfileobj(self._pixels, file)

        write_atomically(path, write)
