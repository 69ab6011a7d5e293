"""How near the decision boundary is: towards the attack, at random, and towards other classes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...models.explain.boundary import (
    boundary_distances,
    directions_to_other_classes,
    random_directions,
)
from ..api.epsilon import Epsilon
from ..api.errors import BadParameter
from ..api.study import Spec, StudiedNetwork, StudyContext, StudyDefaults, StudyResult
from ..report.figure_style import figure_style, legend_below, look, panels
from .networks import ROBUST, STANDARD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OTHERS = 1000  # training images, among which the nearest of another class is looked for
DIRECTIONS = ("adversarial", "to another class", "random")


@dataclass(frozen=True)
class Boundary:
    """Distances to the decision boundary along adversarial, inter-class and random directions.

    In L2, and divided by sqrt(D), the root of the number of values in an image: the change of a
    pixel. Where the box [0, 1] ends before the class changes the distance is right-censored: it is
    at least so far. Medians count such examples as farther than all others, and their share is in
    the table. A random direction needs about sqrt(D) times the adversarial distance on a flat
    boundary, which is why noise fools nobody.

    Source: Fawzi et al. 2016, arXiv:1608.08967.

    attack, epsilon: what gives the adversarial direction, in L2. By default on the margin: where a
        network is sure of itself the gradient of the cross-entropy is 0 in float32, and the attack
        stays where it began.
    directions: random ones for each image.
    """

    attack: Spec = field(default_factory=lambda: {"name": "pgd", "loss": "margin"})
    epsilon: str | float = "1.0"
    directions: int = 3

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=(STANDARD, ROBUST))

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)
        if self.directions < 1:
            raise BadParameter(f"boundary: directions = {self.directions} must be at least 1")

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each network, image and direction; medians and censored shares."""
        data, train = context.data("test"), context.data("train", _OTHERS)
        x = data.images.read(torch.arange(len(data))).to(context.device)
        others = train.images.read(torch.arange(len(train))).to(context.device)
        found: list[dict[str, Any]] = []
        for number, network in enumerate(context.networks):
            context.progress(number, len(context.networks), network.title)
            right = self._right(network, x, data.labels)
            if not len(right):
                raise BadParameter(f"{network.title} gets no image right: there is no distance")
            found += self._rows(
                network, x[right], data.labels[right], others, train.labels, right, context
            )
        context.progress(len(context.networks), len(context.networks))
        distances = pd.DataFrame(found)
        summary = pd.DataFrame(_summaries(distances))
        return StudyResult(
            {"summary": summary, "distances": distances},
            {"boundary": _figure(distances)},
            list(_notes(summary)),
        )

    @torch.no_grad()
    def _right(self, network: StudiedNetwork, x: Tensor, labels: Tensor) -> Tensor:
        predicted: Tensor = network.module(x).argmax(dim=1).cpu()
        return (predicted == labels).nonzero()[:, 0]

    def _rows(
        self,
        network: StudiedNetwork,
        x: Tensor,
        labels: Tensor,
        others: Tensor,
        other_labels: Tensor,
        rows: Tensor,
        context: StudyContext,
    ) -> Iterator[dict[str, Any]]:
        classes = labels.to(context.device)
        attacked = context.attack(network.module, x, classes, self.epsilon, self.attack, "L2")
        moved = attacked - x
        still = moved.flatten(1).norm(dim=1) == 0  # an attack that stayed gives no direction
        drawn = [random_directions(x, context.seed + one) for one in range(self.directions)]
        moved[still] = drawn[0][still]
        ways = [
            ("adversarial", moved),
            (
                "to another class",
                directions_to_other_classes(x, classes, others, other_labels.to(context.device)),
            ),
            *[("random", one) for one in drawn],
        ]
        for name, direction in ways:
            found = boundary_distances(network.module, x, direction)
            columns = (found.distance, found.censored, found.reached)
            for row, (distance, censored, reached) in enumerate(
                zip(*(one.tolist() for one in columns), strict=True)
            ):
                yield {
                    "network": network.title,
                    "direction": name,
                    "example": int(rows[row]),
                    "distance": distance,
                    "per_pixel": distance / x[0].numel() ** 0.5,
                    "censored": censored,
                    "reached": reached,
                }


def _summaries(distances: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Medians and quartiles; infinite where the box ended first for so many."""
    for (network, direction), rows in distances.groupby(["network", "direction"], sort=False):
        known = np.where(rows["censored"], np.inf, rows["distance"])
        low, median, high = np.quantile(known, (0.25, 0.5, 0.75), method="inverted_cdf")
        yield {
            "network": network,
            "direction": direction,
            "median": median,
            "quartile_low": low,
            "quartile_high": high,
            "median_per_pixel": median * rows["per_pixel"].iloc[0] / rows["distance"].iloc[0],
            "censored_share": rows["censored"].mean(),
            "n": len(rows),
        }


def _figure(distances: pd.DataFrame) -> "Figure":
    """The share of images whose boundary is nearer than a distance, a panel for each network."""
    names = list(dict.fromkeys(distances["network"]))
    with figure_style():
        figure, axes = panels(len(names), height=2.5, legend=DIRECTIONS)
        for one, name in zip(axes, names, strict=True):
            own = distances[distances["network"] == name]
            for number, direction in enumerate(DIRECTIONS):
                _shares(one, number, direction, own[own["direction"] == direction])
            one.set(
                title=name,
                xscale="log",
                xlabel="L2 distance",
                ylabel="share of images",
                ylim=(0, 1),
            )
        legend_below(figure, axes[0])
    return figure


def _shares(axes: "Axes", number: int, label: str, rows: pd.DataFrame) -> None:
    """The cumulative share; it ends below 1 where the box ended first."""
    ordered = np.sort(rows["distance"][~rows["censored"]].to_numpy())
    style = {**look(number), "marker": ""}
    shares = np.arange(1, len(ordered) + 1) / len(rows)
    axes.step(ordered, shares, where="post", label=label, **style)


def _notes(summary: pd.DataFrame) -> Iterator[str]:
    for network, rows in summary.groupby("network", sort=False):
        found = rows.set_index("direction")
        near, far = found.loc["adversarial"], found.loc["random"]
        ends = far["censored_share"]
        yield (
            f"{network}: median L2 distance {near['median']:.2f} along the attack, "
            f"{found.loc['to another class', 'median']:.2f} towards another class; at random the "
            f"box ends first for {ends:.0%}"
            + ("" if np.isinf(far["median"]) else f", the median is {far['median']:.1f}")
        )
