"""PCA colour augmentation: the light on an image changes along the colours that images vary in."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ....bench.api.errors import BadParameter
from .train_data import Examples

CHUNK = 1024


@dataclass(frozen=True)
class PrincipalColours:
    """Random multiples of the principal components of RGB (Krizhevsky et al. 2012, section 4.1).

    To every pixel of an image [p1, p2, p3] [a1 l1, a2 l2, a3 l3]^T is added: p and l are the
    eigenvectors and eigenvalues of the 3x3 covariance of the pixels of the training part, a is
    normal with mean 0 and standard deviation `spread`, drawn once for each image each time that it
    is used.

    axes: (3, 3) float32, the eigenvectors times their eigenvalues, one a column.

    The covariance is that of pixels in [0, 1]; the paper does not say the scale of its own.
    Departure: the result is clipped to [0, 1], where every image here lives.
    """

    axes: Tensor
    spread: float

    @classmethod
    def of(cls, examples: Examples, spread: float) -> "PrincipalColours":
        """Find the axes, in float64 and a chunk of the examples at a time.

        Raises: BadParameter when the images have no three channels.
        """
        total = torch.zeros(3, dtype=torch.float64)
        squares = torch.zeros(3, 3, dtype=torch.float64)
        pixels = 0
        rows = torch.arange(len(examples), device=examples.home)
        for part in rows.tensor_split(math.ceil(len(rows) / CHUNK)):
            x, _ = examples.read(part)
            if x.shape[1] != 3:
                raise BadParameter(
                    f"colour = {spread:g} is for images of 3 channels; these have {x.shape[1]}"
                )
            flat = x.double().transpose(0, 1).flatten(1)
            total += flat.sum(dim=1).cpu()
            squares += (flat @ flat.T).cpu()
            pixels += flat.shape[1]
        mean = total / pixels
        values, vectors = torch.linalg.eigh(squares / pixels - mean[:, None] * mean)
        return cls((vectors * values.clamp(min=0.0)).float().to(x.device), spread)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3) float32: how far along each axis."""
        return self.spread * torch.randn(count, 3, generator=generator)

    def __call__(self, x: Tensor, drawn: Tensor) -> Tensor:
        """(B, 3, H, W), (B, 3) -> (B, 3, H, W) in [0, 1]."""
        return (x + (drawn @ self.axes.T)[:, :, None, None]).clamp(0.0, 1.0)
