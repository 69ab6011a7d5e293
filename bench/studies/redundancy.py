"""How much neighbouring pixels, and neighbouring features, repeat each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from ...models.explain.layers import calls
from ...models.explain.redundancy import layer_correlations, white_noise
from ..api.errors import BadParameter
from ..api.study import StudiedNetwork, StudyContext, StudyDefaults, StudyResult
from ..report.figure_style import figure_style, legend_below, panels
from .depth import layers_by_depth
from .networks import ROBUST, STANDARD
from .plots import curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INPUT = "input"


@dataclass(frozen=True)
class Redundancy:
    """Correlation of positions by their distance: on images and each layer's maps, against noise.

    That neighbouring pixels are alike is why small shared filters and pooling lose little. The
    areas that neighbouring features see overlap, which makes correlation of its own: white noise
    through the same layers says how much.

    distances: the largest, in pixels of the images. depth: how many layers.
    """

    distances: int = 12
    depth: int = 5

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=(STANDARD, ROBUST))

    def __post_init__(self) -> None:
        for name in ("distances", "depth"):
            if getattr(self, name) < 1:
                raise BadParameter(f"redundancy: {name} = {getattr(self, name)} must be at least 1")

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each network, layer and distance."""
        data = context.data("test")
        x = data.images.read(torch.arange(len(data))).to(context.device)
        found: list[dict[str, Any]] = []
        for number, network in enumerate(context.networks):
            context.progress(number, len(context.networks), network.title)
            found += self._rows(network, x, context)
        context.progress(len(context.networks), len(context.networks))
        table = pd.DataFrame(found)
        return StudyResult(
            {"redundancy": table},
            {"redundancy": _figure(table, context.networks[0].title)},
            list(_notes(table)),
        )

    def _rows(
        self, network: StudiedNetwork, x: Tensor, context: StudyContext
    ) -> Iterator[dict[str, Any]]:
        maps = {one.name for one in calls(network.module, x[:1]) if one.is_map and one.side > 1}
        names = layers_by_depth(network.module, x, self.depth + 2)
        layers = ["", *[name for name in names if name in maps]]
        distances = range(min(self.distances + 1, *x.shape[2:]))
        for images, given in (("images", x), ("white noise", white_noise(x, context.seed))):
            each = layer_correlations(network.module, given, layers, distances)
            for layer, correlations in each.items():
                for distance, correlation in enumerate(correlations.tolist()):
                    yield {
                        "network": network.title,
                        "layer": layer or INPUT,
                        "images": images,
                        "distance": distance,
                        "correlation": correlation,
                    }


def _figure(table: pd.DataFrame, network: str) -> "Figure":
    """One network's layers: images on the left, white noise on the right."""
    own = table[table["network"] == network]
    layers = list(dict.fromkeys(own["layer"]))
    with figure_style():
        figure, axes = panels(2, height=2.5, legend=layers)
        for one, images in zip(axes, ("images", "white noise"), strict=True):
            for number, layer in enumerate(layers):
                rows = own[(own["layer"] == layer) & (own["images"] == images)]
                values = rows[["correlation"]].set_axis(["value"], axis=1)
                curve(one, number, layer, list(rows["distance"]), values)
            one.set(
                title=f"{network}: {images}",
                xlabel="distance / pixels of the map",
                ylabel="correlation",
                ylim=(min(-0.05, own["correlation"].min()), 1.02),
            )
        legend_below(figure, axes[0])
    return figure


def _notes(table: pd.DataFrame) -> Iterator[str]:
    pixels = table[(table["layer"] == INPUT) & (table["images"] == "images")]
    first = pixels[pixels["network"] == pixels["network"].iloc[0]].set_index("distance")
    far = min(8, first.index.max())
    yield (
        f"pixels: correlation {first['correlation'][1]:.2f} at distance 1 and "
        f"{first['correlation'][far]:.2f} at {far}"
    )
    for (network, layer), rows in table[table["distance"] == 1].groupby(
        ["network", "layer"], sort=False
    ):
        if layer != INPUT:
            near = rows.set_index("images")["correlation"]
            yield (
                f"{network}, {layer}: {near['images']:.2f} at distance 1, "
                f"{near['white noise']:.2f} of it from white noise as well"
            )
