"""Rejecting by the distance of features to those of the training images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bench.api.errors import BadParameter
from ..training.loop.train_data import Examples
from ..training.loop.training_config import at_least
from .detector import Detection, batches
from .features import Fitted, with_features

_SHARE = 1e-3  # of the training images, that k is by default
_NEAREST = 1e-12  # squared distance below which its root is not differentiated


@dataclass(frozen=True, kw_only=True)
class KNNDistance(Detection):
    """kNN detector (arXiv:2204.06507): rejects features far from their k-th training neighbour.

    Features are scaled to unit length, whatever their class; the score is the Euclidean distance to
    the k-th nearest of the training images'. Checked against scikit-learn's nearest neighbours.

    base: what is trained and then watched. false_positive_rate: of clean images; the threshold is
    that quantile of the scores of the part that the base held out. layer: by name, whose output is
    averaged over space; by default the input of the last linear layer. neighbours: k; by default
    one in a thousand of the training images, as the paper's 50 of CIFAR-10's 50,000, at least 1.

    Deviation from the paper: it detects other data than the training's, this one attacks on it.

    Raises: BadParameter for a value that cannot be used.

    A black image is like nothing in the training set, so that class 2, "rejected", is predicted:
    >>> import torch
    >>> from quintain.bench.api.examples import linear_example, training_example
    >>> from quintain.defenses.detection.knn_distance import KNNDistance
    >>> from quintain.defenses.none import Undefended
    >>> base = Undefended(epochs=5, augmentation="none")
    >>> model, training = training_example()
    >>> trained = KNNDistance(base=base, neighbours=3).fit(model, training)
    >>> _, images, _ = linear_example()
    >>> black = torch.zeros(1, 1, 4, 4)
    >>> trained.model(torch.cat([images[4:6], black])).argmax(dim=1)
    tensor([0, 1, 2])
    """

    layer: str | None = None
    neighbours: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("neighbours", self.neighbours, 1)

    def detector(self) -> nn.Module:
        """The distance, to what is not known yet."""
        return NeighbourDistance(self.layer, self.neighbours)

    def fitted(self, network: nn.Module, examples: Examples) -> nn.Module:
        """The distance to these examples. Raises: BadParameter when they are too few."""
        return NeighbourDistance.fit(network, examples, self.layer, self.neighbours)


class NeighbourDistance(Fitted):
    """Distance of normalised features to the k-th nearest in a bank. bank: (n, D)."""

    bank: Tensor

    def __init__(self, layer: str | None, neighbours: int | None) -> None:
        super().__init__()
        self.layer = layer
        self.neighbours = neighbours
        self.register_buffer("bank", torch.empty(0))

    @classmethod
    def fit(
        cls, network: nn.Module, examples: Examples, layer: str | None, neighbours: int | None
    ) -> "NeighbourDistance":
        """Remember the features of clean images. Raises: BadParameter when they are too few."""
        if neighbours is not None and len(examples) < neighbours:
            raise BadParameter(
                f"neighbours = {neighbours}, but there are only {len(examples)} training images"
            )
        made = cls(layer, neighbours)
        made.bank = torch.cat(
            [F.normalize(with_features(network, x, layer)[1]) for x, _ in batches(examples)]
        )
        return made

    def forward(self, network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and scores (N,) of images (N, C, H, W)."""
        logits, features = with_features(network, x, self.layer)
        at = F.normalize(features)
        k = self.neighbours or max(1, round(_SHARE * len(self.bank)))
        neighbour = (at.detach() @ self.bank.T).topk(k, dim=1).indices[:, -1]
        squares = (at - self.bank[neighbour]).square().sum(dim=1)
        return logits, squares.clamp(min=_NEAREST).sqrt()
