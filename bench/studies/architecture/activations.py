"""Activations and depth: the gradient that reaches the first layer, with and without skips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from ....models.deep_cnn import ACTIVATIONS
from ....models.explain.gradient_flow import weight_gradients
from ...api.epsilon import Epsilon
from ...api.study import Spec, StudyContext, StudyDefaults, StudyResult
from ...report.figure_style import figure_style, legend_below, panels
from ..networks import STANDARD
from ..plots import curve
from .comparison import (
    MEASURES,
    WEAK_PGD,
    Examples,
    accuracies,
    checked_counts,
    over_seeds,
    trained,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORKS = {
    f"{activation}{', skips' if skips else ''}": {"activation": activation, "skips": skips}
    for activation in ACTIVATIONS
    for skips in (False, True)
}


@dataclass(frozen=True)
class Activations:
    """The gradient at the first layer against depth, for sigmoid, tanh and ReLU, with skips or not.

    Without normalisation, which would hide it. The derivative of a sigmoid is 0.25 at most, so that
    a gradient shrinks at least by a factor of 4 a layer, the layers' weights aside; that of tanh is
    1 at most and that of ReLU 0 or 1. A skip adds 1 to each layer's factor.

    Sources: Hochreiter 1991; Glorot & Bengio 2010; He et al. 2015, arXiv:1512.03385.

    depths: of the untrained networks. draws: of their weights. width: of all networks.
    trained_depths, seeds: networks to train. training: how.
    attack, epsilon: of robust accuracy, in Linf.
    """

    depths: Sequence[int] = (2, 4, 8, 16, 32)
    draws: int = 5
    width: float = 1.0
    trained_depths: Sequence[int] = (4, 16)
    seeds: int = 3
    training: Spec = field(default_factory=lambda: dict(STANDARD))
    attack: Spec = field(default_factory=lambda: dict(WEAK_PGD))
    epsilon: str | float = "8/255"

    defaults: ClassVar[StudyDefaults] = StudyDefaults(dataset="digits", defenses=(), n_examples=200)

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)
        checked_counts("activations", 2, depths=len(self.depths))
        checked_counts("activations", 1, draws=self.draws)
        checked_counts("activations", 0, seeds=self.seeds)

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each untrained network, for each rate of change, and for each training."""
        gradients = pd.DataFrame(self._gradients(context))
        rates = pd.DataFrame(_rates(gradients))
        tables = {"gradients": gradients, "rates": rates}
        figures = {"gradients": _gradients_figure(gradients)}
        notes = [
            f"{row.network}: a layer more multiplies the gradient at the first by {row.factor:.2f}"
            for row in rates.itertuples()
        ]
        if self.seeds and self.trained_depths:
            tables["accuracy"] = found = pd.DataFrame(self._trainings(context))
            figures["accuracy"] = _accuracy_figure(found)
            notes += _accuracy_notes(found)
        return StudyResult(tables, figures, notes)

    def _spec(self, network: str, depth: int) -> dict[str, Any]:
        return {"name": "deep-cnn", "depth": depth, "width": self.width, **NETWORKS[network]}

    def _gradients(self, context: StudyContext) -> Iterator[dict[str, Any]]:
        examples = Examples.of(context, "train", most=64)
        for network in NETWORKS:
            for depth in self.depths:
                for draw in range(self.draws):
                    module = context.untrained(self._spec(network, depth), context.seed + draw)
                    norms = list(weight_gradients(module, examples.x, examples.y).values())
                    yield {
                        "network": network,
                        "depth": depth,
                        "draw": draw,
                        "first": norms[0],
                        "last": norms[-1],
                        "ratio": norms[0] / norms[-1],
                    }

    def _trainings(self, context: StudyContext) -> Iterator[dict[str, Any]]:
        examples = Examples.of(context)
        for depth in self.trained_depths:
            specs = {network: self._spec(network, depth) for network in NETWORKS}
            for one in trained(context, specs, self.training, self.seeds):
                yield {
                    "network": one.group,
                    "depth": depth,
                    "seed": one.seed,
                    **accuracies(context, one.module, examples, self.epsilon, self.attack),
                }


def _rates(gradients: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """By what a layer more multiplies the ratio of first to last gradient: a straight line's slope.

    Fitted to the logarithms by least squares, over all depths and draws.
    """
    for network, rows in gradients.groupby("network", sort=False):
        shown = rows[rows["ratio"] > 0.0]
        slope = np.polyfit(shown["depth"], np.log(shown["ratio"]), 1)[0]
        yield {"network": network, "factor": float(np.exp(slope)), "n": len(shown)}


def _gradients_figure(gradients: pd.DataFrame) -> "Figure":
    """The geometric mean over draws, with the lowest and highest."""
    with figure_style():
        figure, (axes,) = panels(1, height=3.0, legend=list(NETWORKS))
        for number, network in enumerate(NETWORKS):
            each = gradients[gradients["network"] == network].groupby("depth")["ratio"]
            band = pd.DataFrame(
                {
                    "value": each.apply(lambda one: float(np.exp(np.log(one).mean()))),
                    "low": each.min(),
                    "high": each.max(),
                }
            )
            curve(axes, number, network, list(band.index), band)
        axes.set(xlabel="layers", ylabel="gradient norm, first layer / last", yscale="log")
        axes.set_xticks(sorted(set(gradients["depth"])))
        legend_below(figure, axes)
    return figure


def _accuracy_figure(found: pd.DataFrame) -> "Figure":
    """Accuracies by depth, with the interval over seeds."""
    with figure_style():
        figure, axes = panels(2, height=2.5, legend=list(NETWORKS))
        for one, (column, label) in zip(axes, MEASURES.items(), strict=True):
            for number, network in enumerate(NETWORKS):
                means = over_seeds(found[found["network"] == network], ["depth"], column)
                curve(one, number, network, list(means["depth"]), means[["value"]])
            one.set(xlabel="layers", ylabel=label, ylim=(-0.02, 1.02))
            one.set_xticks(sorted(set(found["depth"])))
        legend_below(figure, axes[0])
    return figure


def _accuracy_notes(found: pd.DataFrame) -> Iterator[str]:
    for (network, depth), rows in found.groupby(["network", "depth"], sort=False):
        yield (
            f"{network}, {depth} layers: accuracy {rows['accuracy'].mean():.2f}, "
            f"robust accuracy {rows['robust_accuracy'].mean():.2f} (mean of {len(rows)} seeds)"
        )
