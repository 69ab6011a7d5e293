"""Handwritten digits that come with the install: scikit-learn's, upsampled."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..api.data import ImageData
from ..api.errors import BadParameter
from .in_memory import in_memory
from .validation import check_split

_SCAN_SIZE = 8
_CLASSES = 10
_LEVELS = 16.0
_GRID = 65536.0


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: 1,797 real scans of 8x8 pixels in 10 classes, bundled with scikit-learn.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (the
    part that scikit-learn's load_digits holds). Grey levels 0 to 16 become [0, 1]; the scans are
    upsampled bilinearly to `size` pixels, and rounded to 1/65536 so that every machine gets the
    same bytes.

    size: pixels along a side, at least 8.
    test_share: the part of each class that is the test split. It is spread evenly over the file
        (at 0.25: every fourth scan of each class), without any randomness.

    Raises: BadParameter.

    >>> from quintain.bench.datasets.digits import Digits
    >>> [(split, len(Digits().load(split))) for split in ("train", "test")]
    [('train', 1352), ('test', 445)]
    >>> Digits().load("test").shape
    (1, 16, 16)
    """

    size: int = 16
    test_share: float = 0.25

    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        if self.size < _SCAN_SIZE:
            raise BadParameter(f"digits: size = {self.size} must be at least {_SCAN_SIZE}")
        if not 0.01 <= self.test_share <= 0.99:
            raise BadParameter(
                f"digits: test_share = {self.test_share} must lie between 0.01 and 0.99"
            )

    def load(self, split: Literal["train", "test"]) -> ImageData:
        """Read one split.

        Raises: BadData for a split that does not exist.
        """
        check_split(split)
        scans, targets = _scans()
        labels = torch.as_tensor(targets, dtype=torch.int64)
        held_out = _held_out(labels, self.test_share)
        chosen = held_out if split == "test" else ~held_out
        images = torch.as_tensor(scans).reshape(-1, 1, _SCAN_SIZE, _SCAN_SIZE)[chosen]
        return in_memory(
            _upsample(images / _LEVELS, self.size),
            labels[chosen],
            [str(digit) for digit in range(_CLASSES)],
        )


def _scans() -> tuple[NDArray[Any], NDArray[Any]]:
    """(1797, 64) grey levels, and (1797,) labels, out of scikit-learn's own file.

    To import scikit-learn takes as long as half of a run with nothing to do, so it is asked only
    where its file lies elsewhere.
    """
    package = importlib.util.find_spec("sklearn")
    folder = Path(package.origin).parent if package and package.origin else Path()
    file = folder / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        from sklearn.datasets import load_digits

        return load_digits(return_X_y=True)  # type: ignore[no-any-return]
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1], table[:, -1]


def _upsample(images: Tensor, size: int) -> Tensor:
    """(N, 1, 8, 8) float64 -> (N, 1, size, size) float32 in [0, 1]."""
    large = functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    return (large * _GRID).round().div(_GRID).clamp(0, 1).to(torch.float32)


def _held_out(labels: Tensor, share: float) -> Tensor:
    """(N,) bool: a share of each class, spread evenly."""
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for one in range(_CLASSES):
        of_class = (labels == one).nonzero().squeeze(1)
        marks = (torch.arange(len(of_class) + 1, dtype=torch.float64) * share).floor()
        held_out[of_class] = marks.diff() > 0
    return held_out
