from dataclasses import dataclass

import pytest
import torch

from quintain.bench.api.data import ImageData
from quintain.bench.api.defense import Training


@dataclass
class InMemory:
    """Images given as a tensor."""

    x: torch.Tensor

    def __len__(self):
        return len(self.x)

    def read(self, indices):
        return self.x[indices]

    def fingerprint(self):
        return "in memory"


@dataclass
class Watched:
    """Progress that remembers."""

    seen: list

    def update(self, done, total, note=""):
        self.seen.append((done, total, note))


@pytest.fixture
def image_data():
    """Make ImageData from tensors."""

    def make(x, y, n_classes=2):
        names = tuple(str(one) for one in range(n_classes))
        return ImageData(InMemory(x), y, names, tuple(x.shape[1:]))

    return make


@pytest.fixture
def training(image_data):
    """Make a Training from tensors; its progress remembers."""

    def make(x, y, seed=0, **named):
        data = image_data(x, y, named.pop("n_classes", 2))
        return Training(data, seed, torch.device("cpu"), Watched([]), **named)

    return make


@pytest.fixture
def stripes():
    """200 images, 1x6x6, bright on the left or on the right half: a gap that any network finds."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(200) % 2
    x = 0.3 * torch.rand(200, 1, 6, 6, generator=generator)
    x[y == 0, :, :, :3] += 0.5
    x[y == 1, :, :, 3:] += 0.5
    return x, y


@pytest.fixture
def two_cues():
    """600 images, 1x4x4, of two classes: a strong cue that lies to one in ten, weak true ones.

    The first pixel is 0.5 +- 0.3, by a label of which a tenth is wrong. The other 15 are 0.5 +-
    0.06, within noise of 0.06: together nearly always right, and all undone by epsilon 0.1
    (after Tsipras et al. 2018, arXiv:1805.12152).
    """
    generator = torch.Generator().manual_seed(2)
    y = torch.arange(600) % 2
    sign = 2.0 * y - 1.0
    lies = torch.rand(600, generator=generator) < 0.1
    x = 0.5 + 0.06 * sign[:, None] + 0.06 * torch.randn(600, 16, generator=generator)
    x[:, 0] = 0.5 + 0.3 * torch.where(lies, -sign, sign)
    return x.reshape(600, 1, 4, 4), y
