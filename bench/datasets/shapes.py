"""Drawn shapes on cluttered backgrounds, with masks: where the object is, is known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..api.data import ImageData
from ..api.errors import BadParameter
from .in_memory import in_memory
from .validation import check_split

_Array = NDArray[np.float64]
_SMALLEST = 16
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Shapes:
    """Coloured, textured shapes of several scales before clutter, made from a seed; 8 classes.

    A class is a shape: circle, square, triangle, ring, cross, star, bar, crescent. Its colour,
    texture (plain, stripes, checks, speckles), size, turn and place are drawn for every image, and
    so is the background: soft patches of colour, noise, and thin strokes. So only the outline says
    which class an image is of, and `ImageData.masks` says where it lies.

    size: pixels along a side, at least 16.
    n_train, n_test: images in each split. The first of a longer split are those of a shorter one.
    smallest, largest: half the width of a shape, as a share of the image's side.
    clutter: how strong the background is, from 0 (flat colour) to 1.
    seed: of both splits, which share no image.

    Raises: BadParameter.
    """

    size: int = 32
    n_train: int = 4000
    n_test: int = 500
    smallest: float = 0.25
    largest: float = 0.4
    clutter: float = 0.5
    seed: int = 0

    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        if self.size < _SMALLEST:
            raise BadParameter(f"shapes: size = {self.size} must be at least {_SMALLEST}")
        for name in ("n_train", "n_test"):
            if getattr(self, name) < 1:
                raise BadParameter(f"shapes: {name} = {getattr(self, name)} must be at least 1")
        if not 0.05 <= self.smallest <= self.largest <= 0.5:
            raise BadParameter(
                f"shapes: smallest = {self.smallest}, largest = {self.largest} must lie between "
                "0.05 and 0.5, the smallest first"
            )
        if not 0.0 <= self.clutter <= 1.0:
            raise BadParameter(f"shapes: clutter = {self.clutter} must lie between 0 and 1")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise BadParameter(f"shapes: seed = {self.seed} must lie between 0 and {_LARGEST_SEED}")

    def load(self, split: Literal["train", "test"]) -> ImageData:
        """Draw one split, with masks.

        Raises: BadData for a split that does not exist.
        """
        check_split(split)
        count = self.n_train if split == "train" else self.n_test
        images = np.empty((count, 3, self.size, self.size), dtype=np.uint8)
        masks = np.empty((count, self.size, self.size), dtype=bool)
        labels = np.arange(count) % len(_OUTLINES)
        for number, label in enumerate(labels):
            source = np.random.Generator(
                np.random.Philox(key=[self.seed, 2 * number + (split == "test")])
            )
            images[number], masks[number] = self._draw(int(label), source)
        return in_memory(
            torch.from_numpy(images),
            torch.from_numpy(labels),
            list(_OUTLINES),
            masks=torch.from_numpy(masks),
        )

    def _draw(
        self, label: int, source: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(3, S, S) pixels, and (S, S) bool, where at least half of a pixel is the shape."""
        size = self.size
        axis = (np.arange(size) + 0.5) / size
        y, x = np.meshgrid(axis, axis, indexing="ij")
        radius = source.uniform(self.smallest, self.largest)
        at_x, at_y = source.uniform(radius, 1.0 - radius, size=2)
        turn = source.uniform(0.0, 2.0 * np.pi)
        u, v = (x - at_x) / radius, (y - at_y) / radius
        u, v = np.cos(turn) * u + np.sin(turn) * v, np.cos(turn) * v - np.sin(turn) * u
        inside = list(_OUTLINES.values())[label](u, v) * radius * size  # pixels, positive within
        cover = np.clip(0.5 + inside, 0.0, 1.0)
        background = _background(x, y, self.clutter, source)
        painted = _paint(u, v, background, source)
        pixels = background + cover * (painted - background)
        return np.rint(pixels * 255.0).astype(np.uint8), cover >= 0.5


def _background(x: _Array, y: _Array, clutter: float, source: np.random.Generator) -> _Array:
    """(3, S, S) in [0, 1]: soft patches of colour, thin strokes, and noise."""
    pixels = np.empty((3, *x.shape))
    pixels[:] = source.uniform(0.15, 0.85, size=(3, 1, 1))
    for _ in range(6):
        at_x, at_y, width = *source.uniform(0.0, 1.0, size=2), source.uniform(0.08, 0.3)
        soft = np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2.0 * width**2))
        pixels += clutter * soft * source.uniform(-0.4, 0.4, size=(3, 1, 1))
    for _ in range(5):
        along = source.uniform(0.0, np.pi)
        offset = (x - source.uniform()) * np.sin(along) - (y - source.uniform()) * np.cos(along)
        stroke = np.clip(1.0 - np.abs(offset) * source.uniform(30.0, 60.0), 0.0, 1.0)
        pixels += clutter * stroke * source.uniform(-0.6, 0.6, size=(3, 1, 1))
    pixels += clutter * source.normal(0.0, 0.05, size=pixels.shape)
    return np.clip(pixels, 0.0, 1.0)


def _paint(u: _Array, v: _Array, background: _Array, source: np.random.Generator) -> _Array:
    """(3, S, S) in [0, 1]: the shape's colours, which differ from what is around them."""
    around = background.mean(axis=(1, 2))
    first = source.uniform(0.0, 1.0, size=3)
    while np.abs(first - around).max() < 0.45:
        first = source.uniform(0.0, 1.0, size=3)
    second = np.clip(first + source.uniform(-0.3, 0.3, size=3), 0.0, 1.0)
    waves = source.uniform(4.0, 9.0)
    texture = (
        np.zeros_like(u),
        np.sin(waves * u),
        np.sin(waves * u) * np.sin(waves * v),
        source.normal(0.0, 0.5, size=u.shape),
    )[source.integers(4)]
    share = np.clip(0.5 + texture, 0.0, 1.0)
    return first[:, None, None] * (1.0 - share) + second[:, None, None] * share


def _polygon(corners: int, inner: float) -> Callable[[_Array, _Array], _Array]:
    """A regular polygon, or a star whose inner corners lie at `inner` of the outer radius."""
    half = np.pi / corners

    def outline(u: _Array, v: _Array) -> _Array:
        angle = np.abs((np.arctan2(v, u) + half) % (2.0 * half) - half)
        away = np.hypot(u, v)
        from_x, from_y = 1.0, 0.0  # an outer corner, then the inner one beside it
        to_x, to_y = inner * np.cos(half), inner * np.sin(half)
        edge_x, edge_y = to_x - from_x, to_y - from_y
        at_x, at_y = away * np.cos(angle) - from_x, away * np.sin(angle) - from_y
        outside: _Array = (edge_y * at_x - edge_x * at_y) / np.hypot(edge_x, edge_y)
        return -outside

    return outline


def _box(width: float, height: float, u: _Array, v: _Array) -> _Array:
    inside: _Array = np.minimum(width - np.abs(u), height - np.abs(v))
    return inside


def _crescent(u: _Array, v: _Array) -> _Array:
    inside: _Array = np.minimum(1.0 - np.hypot(u, v), np.hypot(u - 0.5, v) - 0.75)
    return inside


# of (S, S) coordinates with the shape's half width as unit: how far within the outline
_OUTLINES: dict[str, Callable[[_Array, _Array], Any]] = {
    "circle": lambda u, v: 0.9 - np.hypot(u, v),
    "square": lambda u, v: _box(0.7, 0.7, u, v),
    "triangle": _polygon(3, 0.5),
    "ring": lambda u, v: 0.25 - np.abs(np.hypot(u, v) - 0.7),
    "cross": lambda u, v: np.maximum(_box(0.9, 0.28, u, v), _box(0.28, 0.9, u, v)),
    "star": _polygon(5, 0.42),
    "bar": lambda u, v: _box(0.95, 0.22, u, v),
    "crescent": _crescent,
}
