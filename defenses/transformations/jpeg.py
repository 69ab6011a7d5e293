"""JPEG compression: what the eye does not see, small perturbations among it, is thrown away."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..training.loop.training_config import require
from .base import InputTransformation
from .jpeg_codec import Codec


@dataclass(frozen=True, kw_only=True)
class JPEG(InputTransformation):
    """JPEG compression: the image as it is after being compressed and opened again.

    Source: Guo et al. 2018 (arXiv:1711.00117), section 4.1; Dziugaite et al. 2016
    (arXiv:1608.00853). Baseline JPEG with the standard's tables, colours at half the resolution,
    as common programs write it, in tensors: no file is made, and it runs where the network runs.
    Under attack the derivative is that of compression without rounding, of the frequencies alone
    that are kept or nearly so (BPDA): what is thrown away anyhow is no use to perturb.

    quality: 1 to 100; the papers take 75. base: what trains the network.

    Deviation: Guo et al. also train on compressed images; here the network is the base's.

    Raises: BadParameter for a value that cannot be used, and for images of neither 1 nor 3 channels
    when they come.

    The lower the quality, the further the image is from what it was:
    >>> from quintain.bench.api.examples import linear_example
    >>> from quintain.defenses.transformations.jpeg import JPEG
    >>> _, images, _ = linear_example()
    >>> for quality in (95, 10):
    ...     compressed = JPEG(quality=quality).layer()(images)
    ...     quality, round(float((compressed - images).abs().max()), 2)
    (95, 0.02)
    (10, 0.11)
    """

    quality: int = 75

    def __post_init__(self) -> None:
        require("quality", self.quality, 1 <= self.quality <= 100, "from 1 to 100")

    def layer(self) -> nn.Module:
        """Make the layer that compresses."""
        return Compressed(self.quality)


class Compressed(nn.Module):
    """Compresses (B, 1 or 3, H, W) in [0, 1] and opens it again."""

    differentiable: ClassVar[bool] = False

    def __init__(self, quality: int) -> None:
        super().__init__()
        self.codec = Codec(quality)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        compressed: Tensor = self.codec(x)
        return compressed

    def surrogate(self, x: Tensor) -> Tensor:
        """Compression without rounding, less the frequencies that are far from being kept."""
        return self.codec.unrounded(x)
