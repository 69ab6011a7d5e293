"""What each layer keeps of an image: images that give the same features, by depth and prior."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from ...models.explain import inversion
from ...models.explain.image_priors import (
    PixelScale,
    Prior,
    alpha_norm,
    fit_patch_mixture,
    total_variation,
    weighted,
)
from ...models.explain.layers import reader
from ...models.explain.similarity import psnr, ssim
from ..api.errors import BadParameter, closest
from ..api.study import StudiedNetwork, StudyContext, StudyDefaults, StudyResult
from ..report.figure_style import WIDTH, figure_style, legend_below, panels
from ..report.statistics import bootstrap
from .depth import checked_layers, layers_by_depth, show_layers, shown
from .networks import ROBUST, STANDARD
from .plots import broken, curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRIORS = ("none", "tv", "learned")
_FITTED_TO = 500  # training images


@dataclass(frozen=True)
class FeatureInversion:
    """Images that give the features of real ones at each depth, found without seeing those.

    The optimiser sees the features alone. Without a prior they look like noise, since layers leave
    much open; with one, what is drawn is what the layer keeps and the prior fills in. Beside each
    image stand the error of its features, its PSNR and SSIM to the original, whether the network
    still predicts the same class, and how far restarts differ; and as baselines the data's mean
    colour and white noise. At late layers PSNR rewards grey: judge by feature error and by eye.

    Source: Mahendran & Vedaldi 2015, arXiv:1412.0035; the learned prior is a Gaussian mixture over
    patches of training images (Zoran & Weiss 2011).

    layers: names, or "logits"; by default `depth` of them, from the first to the logits.
    priors: of "none", "tv" and "learned". tv, learned: the weight at the first and the last layer;
        between them it grows by equal factors. beta: of the total variation, 2 or 1. alpha: weight
        of the alpha norm, which bounds the range; the paper's is 0.009 in these units, and costs
        early layers 20 dB.
    images: how many are inverted, each from `restarts` starts. components, patches: Gaussians of
        the learned prior, and training patches that they are fitted to.
    """

    layers: tuple[str, ...] = ()
    depth: int = 6
    priors: tuple[str, ...] = PRIORS
    tv: tuple[float, float] = (0.01, 1.0)
    learned: tuple[float, float] = (0.001, 0.05)
    alpha: float = 0.0
    beta: float = 2.0
    iterations: int = 200
    learning_rate: float = 0.05
    restarts: int = 2
    images: int = 2
    components: int = 20
    patches: int = 20_000

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=(STANDARD, ROBUST))

    def __post_init__(self) -> None:
        for name in self.priors:
            if name not in PRIORS:
                near = closest(name, PRIORS) or f"; there are {', '.join(PRIORS)}"
                raise BadParameter(f"inversion: no prior '{name}'{near}")
        for name in ("depth", "iterations", "restarts", "images", "components", "patches"):
            if getattr(self, name) < 1:
                raise BadParameter(f"inversion: {name} = {getattr(self, name)} must be at least 1")

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each network, layer, prior and image; strips of pictures by depth; curves."""
        data, train = context.data("test", self.images), context.data("train", _FITTED_TO)
        x = data.images.read(torch.arange(len(data))).to(context.device)
        sample = train.images.read(torch.arange(len(train))).to(context.device)
        scale = PixelScale.of(sample)
        mixture = self._fitted(scale.scaled(sample)) if "learned" in self.priors else None
        found: list[dict[str, Any]] = []
        pictures: dict[tuple[str, str, str], Tensor] = {}
        work = [
            (network, number, layer, prior, len(layers))
            for network in context.networks
            for layers in [self._layers(network, x)]
            for number, layer in enumerate(layers)
            for prior in self.priors
        ]
        for done, (network, number, layer, prior, of) in enumerate(work):
            context.progress(done, len(work), f"{network.title}, {shown(layer)}, {prior}")
            term = self._prior(prior, number / max(of - 1, 1), mixture)
            represent = reader(network.module, layer)
            with torch.no_grad():
                features = represent(x)
            inverted = inversion.invert(
                represent,
                features,
                (x.shape[1], x.shape[2], x.shape[3]),
                scale,
                term,
                iterations=self.iterations,
                learning_rate=self.learning_rate,
                restarts=self.restarts,
                seed=context.seed,
            )
            pictures[network.title, shown(layer), prior] = inverted.best.clamp(0.0, 1.0)
            found += self._rows(network, number, layer, prior, inverted, x)
        context.progress(len(work), len(work))
        table = pd.DataFrame([*found, *_baselines(x, scale, context)])
        figures = {"depth": _figure(table)}
        for number in range(len(x)):
            figures[f"pictures-{number + 1}"] = _strip(pictures, x, number)
        return StudyResult({"inversion": table}, figures, list(_notes(table)))

    def _fitted(self, u: Tensor) -> Prior:
        return fit_patch_mixture(u, components=self.components, patches=self.patches)

    def _layers(self, network: StudiedNetwork, x: Tensor) -> list[str]:
        if self.layers:
            return checked_layers(network.module, x, self.layers)
        return layers_by_depth(network.module, x, self.depth)

    def _prior(self, name: str, place: float, mixture: Prior | None) -> Prior | None:
        """The prior at a depth, from 0 for the first layer to 1 for the last."""

        def weight(ends: tuple[float, float]) -> float:
            return float(ends[0] * (ends[1] / ends[0]) ** place)

        if name == "none":
            return None
        if mixture is not None and name == "learned":
            return weighted((self.alpha, alpha_norm), (weight(self.learned), mixture))
        variation = partial(total_variation, beta=self.beta)
        return weighted((self.alpha, alpha_norm), (weight(self.tv), variation))

    def _rows(
        self,
        network: StudiedNetwork,
        number: int,
        layer: str,
        prior: str,
        inverted: inversion.Inversion,
        x: Tensor,
    ) -> Iterator[dict[str, Any]]:
        best = inverted.best.clamp(0.0, 1.0)
        with torch.no_grad():
            same = network.module(best).argmax(dim=1) == network.module(x).argmax(dim=1)
        columns = {
            "feature_error": inverted.best_error,
            "psnr": psnr(best, x),
            "ssim": ssim(best, x),
            "class_kept": same,
            "spread": inverted.spread,
        }
        for row in range(len(x)):
            yield {
                "network": network.title,
                "depth": number,
                "layer": shown(layer),
                "prior": prior,
                "image": row,
                **{name: column[row].item() for name, column in columns.items()},
            }


def _baselines(x: Tensor, scale: PixelScale, context: StudyContext) -> Iterator[dict[str, Any]]:
    """What an image of the mean colour, and white noise around it, get."""
    grey = scale.image(torch.zeros_like(x))
    noise = context.draws("baseline").normal(size=tuple(x.shape))
    noisy = scale.image(torch.as_tensor(noise, dtype=x.dtype, device=x.device)).clamp(0.0, 1.0)
    for name, image in (("mean colour", grey), ("white noise", noisy)):
        for row, (peak, similar) in enumerate(
            zip(psnr(image, x).tolist(), ssim(image, x).tolist(), strict=True)
        ):
            yield {
                "network": "baseline",
                "layer": name,
                "prior": name,
                "image": row,
                "psnr": peak,
                "ssim": similar,
            }


def _figure(table: pd.DataFrame) -> "Figure":
    """Feature error and PSNR over depth, a curve for each network and prior."""
    inverted = table[table["network"] != "baseline"]
    pairs = list(dict.fromkeys(zip(inverted["network"], inverted["prior"], strict=True)))
    networks = list(dict.fromkeys(inverted["network"]))
    legend = [f"{network}, {prior}" for network, prior in pairs]
    with figure_style():
        figure, axes = panels(2, height=2.5, legend=[*legend, "mean colour"])
        for one, measure, label in zip(
            axes, ("feature_error", "psnr"), ("feature error", "PSNR / dB"), strict=True
        ):
            for number, (network, prior) in enumerate(pairs):
                rows = inverted[(inverted["network"] == network) & (inverted["prior"] == prior)]
                means = rows.groupby("depth")[measure].mean()
                curve(
                    one,
                    number,
                    legend[number],
                    list(means.index),
                    pd.DataFrame({"value": means}),
                    dashes=networks.index(network),
                )
            names = inverted[inverted["network"] == networks[0]].drop_duplicates("depth")
            show_layers(one, list(names["layer"]))
            one.set_ylabel(label)
        axes[0].set_yscale("log")
        grey = table[table["layer"] == "mean colour"]["psnr"].mean()
        axes[1].axhline(grey, color="0.4", linestyle=":", label="mean colour")
        legend_below(figure, axes[1])
    return figure


def _strip(pictures: Mapping[tuple[str, str, str], Tensor], x: Tensor, number: int) -> "Figure":
    """One image at each depth: a row for each network and prior."""
    from matplotlib.figure import Figure

    lines = list(dict.fromkeys((network, prior) for network, _, prior in pictures))
    depths = {
        network: list(dict.fromkeys(layer for name, layer, _ in pictures if name == network))
        for network, _ in lines
    }
    columns = 1 + max(map(len, depths.values()))
    side = WIDTH / columns
    with figure_style():
        figure = Figure(figsize=(WIDTH, (side + 0.16) * len(lines)), layout="constrained")
        grid = figure.subplots(len(lines), columns, squeeze=False)
        for axes, (network, prior) in zip(grid, lines, strict=True):
            images = [
                x[number],
                *(pictures[network, one, prior][number] for one in depths[network]),
            ]
            titles = ["original", *depths[network]]
            for one in axes:
                one.set_axis_off()
            for one, image, title in zip(axes, images, titles, strict=False):
                one.imshow(_picture(image), interpolation="nearest")
                one.set_title(title, loc="center", fontsize=6.5)
            axes[0].text(
                -0.06,
                0.5,
                f"{broken(network)}\n{prior}",
                transform=axes[0].transAxes,
                rotation=90,
                ha="right",
                va="center",
                fontsize=6.5,
            )
    return figure


def _picture(image: Tensor) -> Any:
    colours = image.detach().cpu().clamp(0.0, 1.0)
    colours = colours if len(colours) == 3 else colours[:1].expand(3, -1, -1)
    return colours.permute(1, 2, 0).numpy()


def _notes(table: pd.DataFrame) -> Iterator[str]:
    inverted = table[table["network"] != "baseline"]
    grey = table[table["layer"] == "mean colour"]["psnr"].mean()
    for (network, prior), rows in inverted.groupby(["network", "prior"], sort=False):
        first, last = (
            bootstrap(rows[rows["depth"] == depth]["psnr"].to_numpy())
            for depth in (rows["depth"].min(), rows["depth"].max())
        )
        yield (
            f"{network}, prior {prior}: PSNR {first.value:.1f} dB at the first layer, "
            f"{last.value:.1f} dB at the logits, where the mean colour alone gives {grey:.1f}"
        )
