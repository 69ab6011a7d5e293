"""The gradient smoothed by a kernel: that of the mean loss over shifted images, nearly."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ...bench.api.attack import Access, GradientSource, Loss, Problem
from ...bench.api.errors import BadParameter
from .autograd import Autograd
from .value_and_gradient import valued

_PAPERS = 15 / 299  # the paper's kernel over the side of its images


@dataclass(frozen=True)
class TranslationInvariant:
    """Gradient of another source, smoothed by a Gaussian kernel.

    Source: Dong et al. 2019 (arXiv:1904.02884), equation 8 and section 4.1: to convolve the
    gradient is to average it over shifted images, for a network that shifts change little.

    width: of the kernel in pixels, 2k + 1; its standard deviation is k / sqrt(3). By default as
        wide for the image as the paper's 15 pixels were for 299, and at least 3.
    gradient: the source that is smoothed.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> source = {"name": "translation-invariant", "width": 3, "gradient": "autograd"}
    >>> attack = {"name": "mi-fgsm", "gradient": source}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "1"

    width: int | None = None
    gradient: GradientSource = Autograd()

    def __post_init__(self) -> None:
        if self.width is not None and (self.width < 1 or self.width % 2 == 0):
            raise BadParameter(f"width must be odd and positive, not {self.width}")

    @property
    def access(self) -> Access:
        """What the other source needs."""
        return self.gradient.access

    @property
    def monotone(self) -> bool:
        """As the other source."""
        return getattr(self.gradient, "monotone", True)

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the smoothed gradient at x."""
        return self._smooth(self.gradient(problem, x, loss))

    def valued(self, problem: Problem, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,): the smoothed gradient at x, and the loss there."""
        gradient, value = valued(self.gradient, problem, x, loss)
        return self._smooth(gradient), value

    def _smooth(self, gradient: Tensor) -> Tensor:
        half = self._half(max(gradient.shape[2:]))
        offsets = torch.arange(-half, half + 1, dtype=torch.float64)
        heights = torch.exp(-1.5 * (offsets / max(half, 1)) ** 2)
        weights: list[float] = (heights / heights.sum()).tolist()
        for axis in (2, 3):
            gradient = _smoothed(gradient, weights, axis)
        return gradient

    def _half(self, side: int) -> int:
        """Pixels of the kernel on each side of its middle."""
        if self.width is not None:
            return self.width // 2
        return max(1, math.floor(_PAPERS * side / 2))


def _smoothed(images: Tensor, weights: list[float], axis: int) -> Tensor:
    """Convolve along one axis, zeros around; in this order, however many images there are."""
    half, length = len(weights) // 2, images.shape[axis]
    around = (0, 0, half, half) if axis == 2 else (half, half)
    padded = functional.pad(images, around)
    total = torch.zeros_like(images)
    for shift, weight in enumerate(weights):
        total = total + weight * padded.narrow(axis, shift, length)
    return total
