"""Where verified adversarial examples are kept: in memory, in a file that grows, or a few."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..api.data import Images
from ..store.atomic import write_atomically

Predict = Callable[[Tensor], Tensor]  # (n, C, H, W) -> (n,) int64


class AdversarialStore(Protocol):
    """Takes adversarial examples as they come."""

    def keep(self, row: int, point: int, x_adv: Tensor, distance: float) -> None:
        """Take x_adv, (C, H, W) on the CPU, of one example at one point of the grid.

        distance: its norm.
        """


@dataclass(frozen=True)
class InMemoryStore:
    """Adversarial examples in memory. images: row -> grid point -> (C, H, W)."""

    images: dict[int, dict[int, Tensor]] = field(default_factory=dict)

    def keep(self, row: int, point: int, x_adv: Tensor, distance: float) -> None:
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

    def keep(self, row: int, point: int, x_adv: Tensor, distance: float) -> None:
        """Take one."""
        self._pixels.write(x_adv.numpy().astype("<f4").tobytes())
        self._places.append((row, point))

    def add(self, path: Path, start: int) -> None:
        """Take what another has saved of other examples. start: the row that it calls 0."""
        with safe_open(path, framework="np") as saved:
            rows, points = saved.get_tensor("row"), saved.get_tensor("point")
            images = saved.get_slice("x_adv")
            for number, (row, point) in enumerate(zip(rows.tolist(), points.tolist(), strict=True)):
                self._pixels.write(images[number].astype("<f4").tobytes())
                self._places.append((row + start, point))

    def save(self, path: Path) -> None:
        """Write them as safetensors: `x_adv` (n, C, H, W), `row` (n,), `point` (n,), by these.

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
        order = np.lexsort((places[:, 1], places[:, 0]))  # stable: of one place, as they came

        def write(at: Path) -> None:
            with at.open("wb") as file:
                file.write(len(text).to_bytes(8, "little") + text)
                file.write(places[order, 0].tobytes() + places[order, 1].tobytes())
                for number in order.tolist():
                    self._pixels.seek(number * size)
                    file.write(self._pixels.read(size))

        write_atomically(path, write)


class FewExamples:
    """The adversarial examples nearest to their images, and some of median distance.

    Memory does not grow with the number of examples: the nearest are kept as they come, and those
    of median distance are chosen among a sample that is spread evenly over the examples.

    point: of the grid, at which an example must be broken. examples: how many there are. start: the
    first of those that are kept here, which is called row 0. Where several are verified for one
    example, the nearest counts.
    """

    COUNT = 8
    _SAMPLE = 64

    def __init__(self, point: int, examples: int, start: int = 0) -> None:
        self._point = point
        self._start = start
        self._stride = max(1, examples // self._SAMPLE)
        self._distances: dict[int, float] = {}
        self._worst: dict[int, Tensor] = {}
        self._sample: dict[int, Tensor] = {}

    def keep(self, row: int, point: int, x_adv: Tensor, distance: float) -> None:
        """Take one, where it is nearer than what is known of its example."""
        if point > self._point or distance >= self._distances.get(row, np.inf):
            return
        self._distances[row] = distance
        if (row + self._start) % self._stride == 0:
            self._sample[row] = x_adv.clone()
        self._worst[row] = x_adv.clone()
        self._trim()

    def arrays(self) -> dict[str, Tensor]:
        """All that is known, for `add`."""
        return {
            "distances": torch.tensor([*self._distances.values()], dtype=torch.float64),
            "broken": torch.tensor([*self._distances], dtype=torch.int64),
            **_stacked("worst", self._worst),
            **_stacked("sample", self._sample),
        }

    def add(self, arrays: Mapping[str, Tensor], start: int) -> None:
        """Take what others have kept of other examples.

        arrays: what their `arrays` gave. start: the row that they call 0.
        """
        broken = (arrays["broken"] + start).tolist()
        self._distances.update(zip(broken, arrays["distances"].tolist(), strict=True))
        for name, kept in (("worst", self._worst), ("sample", self._sample)):
            rows = (arrays[name] + start).tolist()
            kept.update(zip(rows, arrays[f"{name}_x_adv"], strict=True))
        self._trim()

    def _trim(self) -> None:
        while len(self._worst) > self.COUNT:
            del self._worst[max(self._worst, key=self._order)]

    @property
    def any(self) -> bool:
        """Whether an example was broken."""
        return bool(self._worst)

    def _order(self, row: int) -> tuple[float, int]:
        return self._distances[row], row

    def save(self, path: Path, images: Images, predict: Predict | None = None) -> None:
        """Write them as safetensors, the nearest first, then those of median distance.

        `x`, `x_adv` (n, C, H, W), `row` (n,), `distance` (n,) float64, `worst` (n,) bool, and
        `prediction` (n,), the classes of `x_adv`, where they can be told. images: the examples.
        """
        worst = sorted(self._worst, key=self._order)
        middle = float(np.median([*self._distances.values()])) if self._distances else 0.0
        others = sorted(self._sample.keys() - set(worst), key=lambda row: self._apart(row, middle))
        median = sorted(others[: self.COUNT], key=self._order)
        rows = torch.tensor([*worst, *median], dtype=torch.int64)
        x = images.read(rows).cpu()
        kept = [*(self._worst[row] for row in worst), *(self._sample[row] for row in median)]
        tensors = {
            "row": rows,
            "x": x,
            "x_adv": torch.stack(kept) if kept else x.clone(),
            "distance": torch.tensor(
                [self._distances[row] for row in rows.tolist()], dtype=torch.float64
            ),
            "worst": torch.arange(len(rows)) < len(worst),
        }
        if predict is not None:
            tensors["prediction"] = predict(tensors["x_adv"])
        content = save(tensors)
        write_atomically(path, lambda at: at.write_bytes(content))

    def _apart(self, row: int, middle: float) -> tuple[float, int]:
        return abs(self._distances[row] - middle), row


def _stacked(name: str, images: Mapping[int, Tensor]) -> dict[str, Tensor]:
    found = torch.stack([*images.values()]) if images else torch.empty(0)
    return {name: torch.tensor([*images], dtype=torch.int64), f"{name}_x_adv": found}


@dataclass(frozen=True)
class SeveralStores:
    """Hands each adversarial example to several stores."""

    stores: tuple[AdversarialStore, ...]

    def keep(self, row: int, point: int, x_adv: Tensor, distance: float) -> None:
        """Take one."""
        for store in self.stores:
            store.keep(row, point, x_adv, distance)
