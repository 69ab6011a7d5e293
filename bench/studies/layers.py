"""What is kept over depth: of the class, by linear probes, and of the image, by inversion."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from ...models.explain.image_priors import PixelScale, total_variation, weighted
from ...models.explain.inversion import invert
from ...models.explain.layers import reader
from ...models.explain.probes import Labelled, probe_layers
from ...models.explain.similarity import psnr
from ..api.data import ImageData
from ..api.errors import BadParameter
from ..api.study import StudiedNetwork, StudyContext, StudyDefaults, StudyResult
from ..report.figure_style import figure_style, legend_below, panels
from ..report.statistics import bootstrap, interval
from .depth import checked_layers, layers_by_depth, show_layers, shown
from .networks import ROBUST, STANDARD
from .plots import curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FITTED_TO = 500
UNTRAINED = "untrained"


@dataclass(frozen=True)
class WhatLayersKeep:
    """Two curves over depth: the class, by linear probes, and the image, by feature inversion.

    A probe is a linear classifier on a layer's features: its accuracy says how much of the class
    stands there to be read. The inversion's PSNR says how much of the image does. Trained networks
    gain the one and lose the other; the untrained network is the baseline of both.

    Sources: Alain & Bengio 2016, arXiv:1610.01644; Mahendran & Vedaldi 2015, arXiv:1412.0035.

    layers: names, or "logits"; by default `depth` of them, from the first to the logits.
    train_images: how many probes are fitted to; they are tested on the examples of the test split.
        grid: maps are averaged over grid x grid areas before a probe reads them.
    images: how many are inverted. tv: weight of total variation at the first and the last layer.
    untrained: whether a network with its first weights is looked at too.
    """

    layers: tuple[str, ...] = ()
    depth: int = 6
    train_images: int = 1000
    grid: int = 4
    images: int = 4
    iterations: int = 200
    tv: tuple[float, float] = (0.01, 1.0)
    untrained: bool = True

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=(STANDARD, ROBUST), n_examples=500)

    def __post_init__(self) -> None:
        for name in ("depth", "train_images", "grid", "images", "iterations"):
            if getattr(self, name) < 1:
                raise BadParameter(f"layers: {name} = {getattr(self, name)} must be at least 1")

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each network and layer, and both curves in one figure."""
        train = _labelled(context.data("train", self.train_images), context)
        test = _labelled(context.data("test"), context)
        inverted = _labelled(context.data("test", self.images), context).images
        networks = list(context.networks)
        if self.untrained:
            networks.append(StudiedNetwork(UNTRAINED, context.untrained()))
        table: list[dict[str, Any]] = []
        for number, network in enumerate(networks):
            context.progress(number, len(networks), network.title)
            table += self._rows(network, train, test, inverted, context)
        context.progress(len(networks), len(networks))
        rows = pd.DataFrame(table)
        return StudyResult({"layers": rows}, {"layers": _figure(rows)}, list(_notes(rows)))

    def _rows(
        self,
        network: StudiedNetwork,
        train: Labelled,
        test: Labelled,
        x: Tensor,
        context: StudyContext,
    ) -> Iterator[dict[str, Any]]:
        module = network.module
        names = (
            checked_layers(module, x, self.layers)
            if self.layers
            else layers_by_depth(module, x, self.depth)
        )
        probes = probe_layers(module, names, train, test, grid=self.grid, seed=context.seed)
        scale = PixelScale.of(train.images[:_FITTED_TO])
        for depth, (name, probe) in enumerate(zip(names, probes, strict=True)):
            ratio = self.tv[1] / self.tv[0]
            weight = self.tv[0] * ratio ** (depth / max(len(names) - 1, 1))
            represent = reader(module, name)
            with torch.no_grad():
                features = represent(x)
            found = invert(
                represent,
                features,
                (x.shape[1], x.shape[2], x.shape[3]),
                scale,
                weighted((weight, total_variation)),
                iterations=self.iterations,
                seed=context.seed,
            )
            count = len(test.labels)
            low, high = interval(round(probe.accuracy * count), count)
            peak = bootstrap(psnr(found.best.clamp(0.0, 1.0), x).cpu().numpy())
            yield {
                "network": network.title,
                "depth": depth,
                "layer": shown(name),
                "probe_accuracy": probe.accuracy,
                "probe_low": low,
                "probe_high": high,
                "probe_train_accuracy": probe.train_accuracy,
                "values": probe.values,
                "inversion_psnr": peak.value,
                "psnr_low": peak.low,
                "psnr_high": peak.high,
                "feature_error": float(found.best_error.mean()),
            }


def _labelled(data: ImageData, context: StudyContext) -> Labelled:
    """Images and their classes, in memory."""
    x = data.images.read(torch.arange(len(data))).to(context.device)
    return Labelled(x, _classes(data.labels))


def _classes(labels: Tensor) -> Tensor:
    return labels if labels.dim() == 1 else labels.argmax(dim=1)


def _figure(table: pd.DataFrame) -> "Figure":
    """Probe accuracy and PSNR over depth."""
    names = list(dict.fromkeys(table["network"]))
    shown_as = {
        "probe accuracy (of the class)": ("probe_accuracy", "probe_low", "probe_high"),
        "inversion PSNR / dB (of the image)": ("inversion_psnr", "psnr_low", "psnr_high"),
    }
    with figure_style():
        figure, axes = panels(2, height=2.5, legend=names)
        for one, (label, columns) in zip(axes, shown_as.items(), strict=True):
            for number, name in enumerate(names):
                rows = table[table["network"] == name]
                renamed = rows[list(columns)].set_axis(["value", "low", "high"], axis=1)
                curve(one, number, name, list(rows["depth"]), renamed)
            first = table[table["network"] == names[0]]
            show_layers(one, list(first["layer"]))
            one.set_ylabel(label)
        axes[0].set_ylim(0.0, 1.02)
        legend_below(figure, axes[0])
    return figure


def _notes(table: pd.DataFrame) -> Iterator[str]:
    for network, rows in table.groupby("network", sort=False):
        first, last = rows.iloc[0], rows.iloc[-1]
        yield (
            f"{network}: a linear probe reads the class of {first['probe_accuracy']:.0%} of images "
            f"at {first['layer']}, of {last['probe_accuracy']:.0%} at {last['layer']}; inversion "
            f"gives {first['inversion_psnr']:.1f} dB and {last['inversion_psnr']:.1f} dB"
        )
