"""Rejecting what a network sees otherwise once the image is squeezed."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...bench.api.errors import BadParameter
from ..training.loop.train_data import Examples
from ..training.loop.training_config import at_least
from ..transformations.bit_depth import ReducedDepth
from ..transformations.median_filter import Median
from .detector import Detection


@dataclass(frozen=True, kw_only=True)
class FeatureSqueezing(Detection):
    """Feature squeezing (arXiv:1704.01155): rejects what is classified otherwise when squeezed.

    The score is the L1 distance between the probabilities for the image and for its squeezed form,
    the largest over the squeezers (section 5.1): fewer grey levels, and a median filter.

    base: what is trained and then watched. false_positive_rate: of clean images; the threshold is
    that quantile of the scores of the part that the base held out. bits: of the grey levels, the
    paper's are 1 for MNIST and 5 for CIFAR-10; 0 leaves this squeezer out. median: size of the
    filter's window, the paper's is 2; 0 leaves it out.

    Deviations from the paper: no non-local means, its third squeezer for colour images; the
    threshold is set on images that were held out from training, not on those trained on.

    Raises: BadParameter for a value that cannot be used.

    With one bit the first row of the last image counts no more than the others, and the class
    changes: so class 2, "rejected", is predicted.
    >>> import torch
    >>> from quintain.bench.api.examples import linear_example, training_example
    >>> from quintain.defenses.detection.feature_squeezing import FeatureSqueezing
    >>> from quintain.defenses.none import Undefended
    >>> base = Undefended(epochs=30, augmentation="none")
    >>> model, training = training_example()
    >>> trained = FeatureSqueezing(base=base, bits=1, median=0).fit(model, training)
    >>> _, images, _ = linear_example()
    >>> odd = images[9:].clone()
    >>> odd[0, 0, 0] = 0.5 - 4.5 * (odd[0, 0, 0] - 0.5)
    >>> trained.model(torch.cat([images[8:], odd])).argmax(dim=1)
    tensor([0, 1, 2])
    """

    bits: int = 1
    median: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("bits", self.bits, 0)
        at_least("median", self.median, 0)
        if not self.bits and self.median < 2:
            raise BadParameter("feature-squeezing needs a squeezer: bits above 0 or median above 1")

    def detector(self) -> "Squeezing":
        """The distance between what is seen before and after squeezing."""
        bits = [ReducedDepth(self.bits)] if self.bits else []
        median = [Median(self.median)] if self.median > 1 else []
        return Squeezing([*bits, *median])

    def fitted(self, network: nn.Module, examples: Examples) -> nn.Module:
        """The same: there is nothing to fit."""
        return self.detector()


class Squeezing(nn.Module):
    """Largest L1 distance between the probabilities for an image and for its squeezed forms."""

    def __init__(self, squeezers: list[nn.Module]) -> None:
        super().__init__()
        self.squeezers = nn.ModuleList(squeezers)

    def forward(self, network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and scores (N,), between 0 and 2, of images (N, C, H, W)."""
        logits = network(x)
        seen = logits.softmax(dim=1)
        distances = [
            (network(squeeze(x)).softmax(dim=1) - seen).abs().sum(dim=1)
            for squeeze in self.squeezers
        ]
        return logits, torch.stack(distances).amax(dim=0)
