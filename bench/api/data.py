"""What a dataset is: labelled images that are read on demand."""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor


class Images(Protocol):
    """Images that are read on demand."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, indices: Tensor) -> Tensor:
        """(n,) int64 -> (n, C, H, W) float32 in [0, 1]."""

    def fingerprint(self) -> str:
        """Name the content: a hash of the bytes, or of what stands for them on disk."""


@dataclass(frozen=True)
class ImageData:
    """Labelled images. labels: (N,) int64 classes, or (N, K) float32 probabilities.

    masks: (N, H, W) bool, where the object is in each image, of a dataset that knows it.
    """

    images: Images
    labels: Tensor
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_classes(self) -> int:
        """How many classes there are, present in the labels or not."""
        return len(self.class_names)


class Dataset(Protocol):
    """A dataset plugin: a frozen dataclass whose fields say where and how to read it."""

    def load(self, split: Literal["train", "test"]) -> ImageData:
        """Read one split. Raises BadData when it is not there or cannot be read."""
