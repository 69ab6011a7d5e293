"""Whether class activation maps lie on the object, and whether they depend on what was learnt."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor, nn

from ...models.explain.class_activation import grad_cam
from ...models.explain.controls import randomised_cascade
from ...models.explain.map_comparison import compare_maps, localisation
from ..api.data import ImageData
from ..api.epsilon import Epsilon
from ..api.errors import BadData
from ..api.study import Spec, StudiedNetwork, StudyContext, StudyDefaults, StudyResult
from ..report.figure_style import figure_style, legend_below, look, panels
from ..report.statistics import Estimate, bootstrap, interval
from .networks import ROBUST, STANDARD
from .plots import points_by_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Localisation:
    """Maps against masks: the pointing game and the energy on the object, clean and attacked.

    Needs a dataset with masks, such as `shapes`. Beside it the sanity check of Adebayo et al. 2018
    (arXiv:1810.03292): layers are made random from the top down, and a map that depends on what
    the network has learnt must change.

    epsilon: of the attack, in Linf. attack: a spec. layer: by default the last whose maps have 4x4
        pixels or more.
    """

    epsilon: str | float = "4/255"
    attack: Spec = "pgd"
    layer: str | None = None

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=(STANDARD, ROBUST))

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)

    def run(self, context: StudyContext) -> StudyResult:
        """Scores with intervals, and the rank correlation of the maps as layers become random."""
        data = context.data("test")
        if data.masks is None:
            raise BadData("the dataset says not where its objects are: shapes does")
        x = data.images.read(torch.arange(len(data))).to(context.device)
        scores: list[dict[str, Any]] = []
        cascades: list[dict[str, Any]] = []
        for number, network in enumerate(context.networks):
            context.progress(number, len(context.networks), network.title)
            scores += self._scores(network, x, data, context)
            cascades += self._cascade(network, x, context)
        context.progress(len(context.networks), len(context.networks))
        table, cascade = pd.DataFrame(scores), pd.DataFrame(cascades)
        return StudyResult(
            {"localisation": table, "randomised": cascade},
            {"localisation": _score_figure(table), "randomised": _cascade_figure(cascade)},
            list(_notes(table, cascade)),
        )

    def _scores(
        self, network: StudiedNetwork, x: Tensor, data: ImageData, context: StudyContext
    ) -> Iterator[dict[str, Any]]:
        labels = data.labels.to(context.device)
        assert data.masks is not None
        attacked = context.attack(network.module, x, labels, self.epsilon, self.attack)
        for images, name in ((x, "clean"), (attacked, "adversarial")):
            maps = grad_cam(network.module, images, labels, self.layer)
            found = localisation(maps.upsampled((x.shape[2], x.shape[3])).cpu(), data.masks.cpu())
            hits, count = int(found.hit.sum()), len(x)
            measures = {
                "pointing game": Estimate(hits / count, *interval(hits, count), count),
                "energy on the object": bootstrap(found.energy.numpy()),
                "chance": bootstrap(found.chance.numpy()),
            }
            right = float((maps.logits.argmax(dim=1) == labels).double().mean())
            for measure, estimate in measures.items():
                yield {
                    "network": network.title,
                    "images": name,
                    "measure": measure,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "n": estimate.n,
                    "accuracy": right,
                    "layer": maps.layer,
                    "blank": int(maps.blank.sum()),
                }

    def _cascade(
        self, network: StudiedNetwork, x: Tensor, context: StudyContext
    ) -> Iterator[dict[str, Any]]:
        """Rank correlation with the trained network's maps, after each layer made random."""
        reference = grad_cam(network.module, x, layer=self.layer)
        steps = randomised_cascade(network.module, x, context.seed)
        yield _step(network, 0, "none", Estimate(1.0, 1.0, 1.0, len(x)), 0)
        for number, (layer, changed) in enumerate(steps, 1):
            yield self._compared(network, number, layer, changed, x, reference)

    def _compared(
        self,
        network: StudiedNetwork,
        number: int,
        layer: str,
        changed: nn.Module,
        x: Tensor,
        reference: Any,
    ) -> dict[str, Any]:
        maps = grad_cam(changed, x, reference.classes, reference.layer)
        found = compare_maps(maps.positive, reference.positive)
        correlation = bootstrap(found.rank_correlation.numpy())
        return _step(network, number, layer, correlation, len(found.blank))


def _step(
    network: StudiedNetwork, number: int, layer: str, found: Estimate, blank: int
) -> dict[str, Any]:
    return {
        "network": network.title,
        "step": number,
        "layer": layer,
        "rank_correlation": found.value,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "blank": blank,
    }


def _score_figure(table: pd.DataFrame) -> "Figure":
    """Both scores by network, clean and attacked, with what a map gets that knows nothing."""
    names = list(dict.fromkeys(table["network"]))
    shown = ("pointing game", "energy on the object")
    legend = ["clean", "adversarial", "a map that knows nothing"]
    with figure_style():
        figure, axes = panels(2, height=2.4, legend=legend)
        for one, measure in zip(axes, shown, strict=True):
            rows = table[table["measure"] == measure]
            chosen = {images: rows[rows["images"] == images] for images in legend[:2]}
            points_by_network(one, names, chosen, f"{measure}, share")
            chance = table.loc[table["measure"] == "chance", "value"].iloc[0]
            one.axhline(chance, color="0.4", linestyle=":", label=legend[2])
            one.set_ylim(0.0, 1.02)
        legend_below(figure, axes[0])
    return figure


def _cascade_figure(cascade: pd.DataFrame) -> "Figure":
    """Rank correlation against the number of layers made random."""
    names = list(dict.fromkeys(cascade["network"]))
    with figure_style():
        figure, (axes,) = panels(1, height=2.4, legend=names)
        for number, name in enumerate(names):
            rows = cascade[cascade["network"] == name]
            style = look(number)
            axes.plot(rows["step"], rows["rank_correlation"], label=name, **style)
            axes.fill_between(
                rows["step"], rows["low"], rows["high"], color=style["color"], alpha=0.15, lw=0
            )
        axes.set(
            xlabel="layers made random, from the last on", ylabel="rank correlation of the maps"
        )
        axes.axhline(0.0, color="0.4", linewidth=0.6)
        legend_below(figure, axes)
    return figure


def _notes(table: pd.DataFrame, cascade: pd.DataFrame) -> Iterator[str]:
    for network, rows in table.groupby("network", sort=False):
        found = rows.set_index(["images", "measure"])["value"]
        yield (
            f"{network}: the largest value lies on the object in "
            f"{found['clean', 'pointing game']:.0%} of clean images and "
            f"{found['adversarial', 'pointing game']:.0%} of attacked ones, by chance in "
            f"{found['clean', 'chance']:.0%}"
        )
    for network, rows in cascade.groupby("network", sort=False):
        last = rows.iloc[-1]
        yield (
            f"{network}: with all layers random the maps' rank correlation with the trained "
            f"network's is {last['rank_correlation']:.2f} [{last['low']:.2f}, {last['high']:.2f}]"
        )
