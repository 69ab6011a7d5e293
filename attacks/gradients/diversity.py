"""The gradient through random resizing and padding, which transfers better."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, GradientSource, Loss, Problem
from ...bench.api.errors import BadParameter
from ..parts.parameters import positive_up_to
from .autograd import Autograd
from .value_and_gradient import valued


@dataclass(frozen=True)
class InputDiversity:
    """Gradient of another source at the image resized and padded at random.

    Source: Xie et al. 2019 (arXiv:1803.06978), section 3.3. The image is shrunk to a random size
    and put at a random place among zeros, again for each example and each gradient.

    probability: of doing so at all. smallest: the smallest size, as a fraction of the image's.
    gradient: the source that is asked there.

    Deviation: the paper enlarges images and resizes by the nearest neighbour; here they are shrunk,
    so that a network of fixed input size can see them, and resized bilinearly.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> source = {"name": "input-diversity", "probability": 0.5, "gradient": "autograd"}
    >>> attack = {"name": "mi-fgsm", "gradient": source}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "2"

    probability: float = 0.5
    smallest: float = 0.9
    gradient: GradientSource = Autograd()

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise BadParameter(f"probability must lie in 0 to 1, not {self.probability}")
        positive_up_to(1.0, smallest=self.smallest)

    @property
    def access(self) -> Access:
        """What the other source needs."""
        return self.gradient.access

    @property
    def monotone(self) -> bool:
        """As the other source."""
        return getattr(self.gradient, "monotone", True)

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the gradient at x of the loss of the resized image.

        Resizing is linear, x -> R x C, so that the gradient goes back as R' g C'.
        """
        rows, columns = self.matrices(problem, x)
        gradient = self.gradient(problem, _resized(x, rows, columns), loss)
        return rows.mT @ gradient @ columns

    def valued(self, problem: Problem, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,): the same, and the loss of the resized image."""
        rows, columns = self.matrices(problem, x)
        gradient, value = valued(self.gradient, problem, _resized(x, rows, columns), loss)
        return rows.mT @ gradient @ columns, value

    def matrices(self, problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, H, H), (B, 1, W, W): what resizes the rows and the columns of each example."""
        draw = problem.draws.uniform((4,), "diversity")
        height, width = x.shape[2:]
        low = min(height, max(1, round(self.smallest * height)))
        sizes = low + (draw[:, 0] * (height - low + 1)).long()
        sizes = torch.where(draw[:, 1] < self.probability, sizes, height)
        wide = (sizes * width / height).round().long().clamp(1, width)
        return (
            resizing(height, sizes, draw[:, 2]).to(x.dtype),
            resizing(width, wide, draw[:, 3]).to(x.dtype),
        )


def _resized(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return (rows @ x @ columns.mT).clamp(0, 1)  # a rounding error may lead out


def resizing(side: int, sizes: Tensor, places: Tensor) -> Tensor:
    """(B, 1, side, side): bilinear shrinking to sizes (B,), put among zeros.

    places: (B,) in [0, 1), where in the room that is left.
    """
    before = (places * (side - sizes + 1)).long()
    at = torch.arange(side, device=sizes.device, dtype=torch.float64)
    inside = (at >= before[:, None]) & (at < (before + sizes)[:, None])
    centre = (at - before[:, None] + 0.5) * (side / sizes.double())[:, None] - 0.5
    weights = (1.0 - (centre.clamp(0, side - 1)[:, :, None] - at).abs()).clamp(min=0.0)
    return (weights * inside[:, :, None])[:, None]
