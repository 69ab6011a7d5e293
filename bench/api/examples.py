"""Problems with known answers: for the examples in docstrings, and to try a plugin of your own on.

Nothing here is drawn at random, so the answers are the same everywhere.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .data import ImageData
from .defense import Training
from .progress import Silent

_DISTANCES = 10  # different ones


def linear_example(count: int = 10) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear model, images that it classifies correctly, and their labels, 0 and 1 in turn.

    Image number i is 0.01 * (i % 10 + 1) from the nearest image of the other class in Linf, four
    times as far in L2, and sixteen times as far in L1. So robust accuracy is known: at epsilon
    0.055 in Linf an attack that finds every adversarial example leaves one half.

    count: of images, (count, 1, 4, 4) in [0, 1]. The model returns logits (B, 2).

    >>> from quintain.bench import evaluate
    >>> model, images, labels = linear_example()
    >>> result = evaluate(model, images, labels, "fgsm", epsilons=[0.025, 0.055, 0.105])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5, 0.0]
    """
    numbers = torch.arange(count)
    labels = numbers % 2
    distance = 0.01 * (numbers % _DISTANCES + 1)
    images = 0.5 + ((2 * labels - 1) * distance)[:, None, None, None] * _chessboard()
    return _linear(_chessboard()), images, labels


def training_example(count: int = 200, epsilon: float = 0.05) -> tuple[nn.Module, Training]:
    """A linear model that also looks at what no image has, and the images to train it on.

    The images are those of `linear_example`. The model classifies them correctly, but its weights
    have a pattern of stripes besides, which only an adversary uses.

    count: of images. epsilon: to train against, in Linf.

    >>> from quintain.bench import evaluate
    >>> model, training = training_example()
    >>> _, images, labels = linear_example()
    >>> evaluate(model, images, labels, "pgd", epsilons=[0.025]).curve["robust_accuracy"].tolist()
    [0.3]
    """
    _, images, labels = linear_example(count)
    data = ImageData(_Images(images), labels, ("first", "second"), (1, 4, 4))
    training = Training(data, 0, torch.device("cpu"), Silent(), epsilon=epsilon)
    return _linear(0.1 * _chessboard() + 0.3 * _stripes()), training


@dataclass(frozen=True, eq=False)
class _Images:
    """Images in a tensor (N, C, H, W)."""

    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def read(self, indices: Tensor) -> Tensor:
        return self.x[indices]

    def fingerprint(self) -> str:
        return f"the example's {len(self.x)} images"


def _linear(weight: Tensor) -> nn.Module:
    """Two classes with the boundary at grey. weight: (1, 4, 4), of class 1 less class 0, halved."""
    layer = nn.Linear(weight.numel(), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-weight.flatten(), weight.flatten()]))
        layer.bias.zero_()  # the weights sum to zero
    return nn.Sequential(nn.Flatten(), layer)


def _chessboard() -> Tensor:
    """(1, 4, 4) of -1 and 1."""
    at = torch.arange(4)
    return (2.0 * ((at[:, None] + at) % 2) - 1.0)[None]


def _stripes() -> Tensor:
    """(1, 4, 4) of -1 and 1, orthogonal to the chessboard."""
    return (2.0 * (torch.arange(4) % 2) - 1.0).expand(1, 4, 4)
