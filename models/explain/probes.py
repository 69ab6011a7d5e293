"""Linear probes: how much of the class a linear reader finds in what a layer gives.

Source: Alain & Bengio 2016, "Understanding intermediate layers using linear classifier probes",
arXiv:1610.01644.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bench.api.errors import BadData, BadParameter
from .layers import drawing, read


@dataclass(frozen=True)
class Labelled:
    """Images (N, C, H, W) in [0, 1] and their classes (N,) int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Probe:
    """How a linear classifier does on one layer. accuracy: on test images, train_accuracy: on the
    images that it was fitted to, both in [0, 1]. values: of the features that it reads, per image.
    """

    layer: str
    accuracy: float
    train_accuracy: float
    values: int


def probe_layers(
    model: nn.Module,
    layers: Iterable[str],
    train: Labelled,
    test: Labelled,
    *,
    grid: int = 4,
    strength: float = 1e-2,
    seed: int = 0,
) -> tuple[Probe, ...]:
    """Fit a linear probe to each layer, and tell its accuracy on other images.

    layers: names; "" is what the network itself gives. grid: maps are averaged over grid x grid
    areas: 1 is their global average, 4 keeps where things are. strength: as in `fit_probe`. seed:
    of the draws of a stochastic network.

    Raises: BadParameter for an unknown layer or a grid below 1; BadData for images that the network
    does not take, or with labels of another number.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    >>> x, y = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
    >>> x = x / 2 + 0.5 * y[:, None, None, None]
    >>> [probe] = probe_layers(model, ["0"], Labelled(x[:30], y[:30]), Labelled(x[30:], y[30:]))
    >>> probe.layer, probe.accuracy, probe.values
    ('0', 1.0, 64)
    """
    names = list(layers)
    if grid < 1:
        raise BadParameter(f"grid = {grid} must be 1 or more")
    for part in (train, test):
        if len(part.images) != len(part.labels):
            raise BadData(f"{len(part.labels)} labels for {len(part.images)} images")
    fitted_to = pooled_features(model, train.images, names, grid=grid, seed=seed)
    tested_on = pooled_features(model, test.images, names, grid=grid, seed=seed)
    found = []
    for name in names:
        classifier = fit_probe(fitted_to[name], train.labels, strength=strength)
        scores = (
            classifier(given).argmax(dim=1).eq(labels.cpu()).double().mean()
            for given, labels in (
                (tested_on[name], test.labels),
                (fitted_to[name], train.labels),
            )
        )
        accuracy, train_accuracy = map(float, scores)
        found.append(Probe(name, accuracy, train_accuracy, fitted_to[name].shape[1]))
    return tuple(found)


def pooled_features(
    model: nn.Module,
    x: Tensor,
    layers: Iterable[str],
    *,
    grid: int = 4,
    batch_size: int = 250,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Name -> (N, D) on the CPU, of each layer: maps averaged over grid x grid areas, flattened.

    Maps that are smaller than the grid, and features without positions, are kept as they are.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    >>> found = pooled_features(model, torch.rand(5, 3, 8, 8), ["0", "2"], grid=2)
    >>> found["0"].shape, found["2"].shape
    (torch.Size([5, 16]), torch.Size([5, 2]))
    """
    names = list(layers)
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for rows in torch.arange(len(x), device=x.device).split(batch_size):
        with torch.no_grad(), drawing(seed, 0, rows):
            logits, found = read(model, x[rows], [name for name in names if name])
        for name in names:
            given = found[name] if name else logits
            if given.dim() == 4 and min(given.shape[2:]) > grid:
                given = F.adaptive_avg_pool2d(given, grid)
            parts[name].append(given.flatten(1).cpu())
    return {name: torch.cat(some) for name, some in parts.items()}


def fit_probe(features: Tensor, labels: Tensor, *, strength: float = 1e-2) -> nn.Sequential:
    """Fit logistic regression by scikit-learn: a module from features (N, D) to logits (N, K).

    Each feature is brought to zero mean and unit spread first; one that does not vary is dropped.
    strength: of the L2 penalty: the mean loss plus strength / 2 times the squared weights. The
    classes are 0 to the largest label; one that no image has gets no logit that wins.

    Raises: BadData for fewer than two classes.

    >>> y = torch.arange(30) % 3
    >>> probe = fit_probe(nn.functional.one_hot(y).float(), y)
    >>> probe(torch.eye(3)).argmax(dim=1)
    tensor([0, 1, 2])
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(labels.unique()) < 2:
        raise BadData("a probe needs images of two classes or more")
    given = features.double().cpu()
    spread, mean = torch.std_mean(given, dim=0, correction=0)
    factor = torch.where(spread > 0, 1.0 / spread, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for an accuracy
        fitted = LogisticRegression(C=1.0 / (strength * len(given)), max_iter=200).fit(
            ((given - mean) * factor).numpy(), labels.cpu().numpy()
        )
    weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(weight) == 1:  # of two classes it has the second's alone
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    classes = torch.from_numpy(fitted.classes_)
    layer = nn.Linear(given.shape[1], int(classes.max()) + 1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(-torch.inf)
        layer.weight[classes] = weight * factor
        layer.bias[classes] = bias - (weight * factor) @ mean
    return nn.Sequential(_Double(), layer).requires_grad_(False)


class _Double(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.double()
