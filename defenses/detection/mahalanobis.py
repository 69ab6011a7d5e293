"""Rejecting by the Mahalanobis distance of features from the classes' means."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..training.loop.train_data import Examples
from ..training.loop.training_config import require
from .detector import Detection, batches
from .features import Fitted, with_features


@dataclass(frozen=True, kw_only=True)
class Mahalanobis(Detection):
    """Mahalanobis detector (arXiv:1807.03888): rejects features far from every class's mean.

    The features of each class are taken for Gaussian, with one covariance for all; the score is
    the smallest distance to a class's mean in that metric (equation 2, here its square root, which
    ranks alike). Checked against scikit-learn's covariance estimators.

    base: what is trained and then watched. false_positive_rate: of clean images; the threshold is
    that quantile of the scores of the part that the base held out. layer: by name, whose output is
    averaged over space; by default the input of the last linear layer.
    shrinkage: of the covariance towards a multiple of the identity; by default as much as Ledoit &
    Wolf (2004) estimate to be best. 0 is the paper's empirical covariance, by its pseudo-inverse:
    with fewer images than features that has directions of almost no variance.

    Deviations from the paper: one layer, not a logistic regression over all of them that is fitted
    to adversarial examples; no gradient step on the input before it is scored; shrinkage.

    Raises: BadParameter for a value that cannot be used.

    A black image is like nothing in the training set, so that class 2, "rejected", is predicted:
    >>> import torch
    >>> from quintain.bench.api.examples import linear_example, training_example
    >>> from quintain.defenses.detection.mahalanobis import Mahalanobis
    >>> from quintain.defenses.none import Undefended
    >>> base = Undefended(epochs=5, augmentation="none")
    >>> model, training = training_example()
    >>> trained = Mahalanobis(base=base).fit(model, training)
    >>> _, images, _ = linear_example()
    >>> black = torch.zeros(1, 1, 4, 4)
    >>> trained.model(torch.cat([images[4:6], black])).argmax(dim=1)
    tensor([0, 1, 2])
    """

    layer: str | None = None
    shrinkage: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        shrinkage = self.shrinkage
        require("shrinkage", shrinkage, shrinkage is None or 0.0 <= shrinkage <= 1.0, "in [0, 1]")

    def detector(self) -> nn.Module:
        """The distance, to what is not known yet."""
        return MahalanobisDistance(self.layer)

    def fitted(self, network: nn.Module, examples: Examples) -> nn.Module:
        """The distance to the means of these examples' classes."""
        return MahalanobisDistance.fit(network, examples, self.layer, self.shrinkage)


class MahalanobisDistance(Fitted):
    """Distance of features to the nearest class's mean, in units of their common spread.

    whitening: (D, R), turns features into uncorrelated ones of unit variance. means: (classes, R),
    of whitened features.
    """

    whitening: Tensor
    means: Tensor

    def __init__(self, layer: str | None) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("whitening", torch.empty(0))
        self.register_buffer("means", torch.empty(0))

    @classmethod
    def fit(
        cls, network: nn.Module, examples: Examples, layer: str | None, shrinkage: float | None
    ) -> "MahalanobisDistance":
        """Estimate the means and the covariance from clean images, in float64."""
        pairs = [(with_features(network, x, layer)[1], y) for x, y in batches(examples)]
        features = torch.cat([one for one, _ in pairs]).cpu().double()
        classes = torch.cat([y for _, y in pairs]).cpu()
        present, own = classes.unique(return_inverse=True)
        means = torch.stack([features[own == one].mean(dim=0) for one in range(len(present))])
        whitening = _whitening(features - means[own], shrinkage)
        made = cls(layer)
        made.whitening = whitening.float()
        made.means = (means @ whitening).float()
        return made

    def forward(self, network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and scores (N,) of images (N, C, H, W)."""
        logits, features = with_features(network, x, self.layer)
        distances = torch.cdist(
            features @ self.whitening,
            self.means,
            compute_mode="donot_use_mm_for_euclid_dist",  # which would lose digits
        )
        return logits, distances.amin(dim=1)


def _whitening(residuals: Tensor, shrinkage: float | None) -> Tensor:
    """(D, R): W with W W^T the (pseudo-)inverse of the covariance of residuals (n, D), float64."""
    from sklearn.covariance import ledoit_wolf_shrinkage  # not when plugins are only listed

    if shrinkage is None:
        shrinkage = float(ledoit_wolf_shrinkage(residuals.numpy(), assume_centered=True))
    covariance = residuals.T @ residuals / len(residuals)
    size = len(covariance)
    level = covariance.trace() / size
    covariance = (1.0 - shrinkage) * covariance + shrinkage * level * torch.eye(size).double()
    variances, axes = torch.linalg.eigh(covariance)
    kept = variances > size * torch.finfo(torch.float64).eps * variances[-1]
    whitening: Tensor = axes[:, kept] * variances[kept].rsqrt()
    return whitening
