"""Where a network looks before and after an attack, against noise of the same size."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from ...models.explain.class_activation import ActivationMaps, grad_cam
from ...models.explain.controls import matched_noise
from ...models.explain.map_comparison import compare_maps
from ...models.explain.similarity import psnr, ssim
from ..api.data import ImageData
from ..api.epsilon import Epsilon
from ..api.errors import BadParameter
from ..api.study import Spec, StudiedNetwork, StudyContext, StudyDefaults, StudyResult
from ..report.figure_style import figure_style, legend_below, panels
from ..report.statistics import bootstrap, paired_difference
from .networks import ROBUST, STANDARD
from .panels import PanelRow, draw_panels
from .plots import broken, points_by_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MEASURES = ("rank_correlation", "ssim", "shift", "mass_left")
_CHANGES = ("attack", "noise")


@dataclass(frozen=True)
class Attention:
    """Class activation maps of clean images, their adversarial examples, and as much noise.

    Each map is compared with that of the clean image for the same class. The noise is the very
    perturbation with its pixels permuted and its signs drawn again, so what it leaves unchanged
    is not for want of size. Most of what an attack does to a map follows the logit that it takes
    away, so examples whose prediction survived stand apart from the others.

    Source: Grad-CAM, arXiv:1610.02391; the measures are those of `models/explain/map_comparison`.

    epsilon: of the attack, in Linf. attack: a spec. layer: by default the last whose maps have 4x4
        pixels or more.
    rows: how many images are drawn for each network.
    """

    epsilon: str | float = "4/255"
    attack: Spec = "pgd"
    layer: str | None = None
    rows: int = 3

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=(STANDARD, ROBUST))

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)
        if self.rows < 1:
            raise BadParameter(f"attention: rows = {self.rows} must be at least 1")

    def run(self, context: StudyContext) -> StudyResult:
        """One row for each example and network, their means with intervals, and panels."""
        data = context.data("test")
        x = data.images.read(torch.arange(len(data))).to(context.device)
        looked = []
        for number, network in enumerate(context.networks):
            context.progress(number, len(context.networks), network.title)
            looked.append(self._look(network, x, data, context))
        context.progress(len(looked), len(looked))
        examples = pd.concat([one.table for one in looked], ignore_index=True)
        summary = pd.DataFrame(_summaries(examples))
        return StudyResult(
            {"summary": summary, "examples": examples},
            {"panels": self._panels(looked, data), "comparison": _figure(summary, context)},
            [*_notes(summary), *dict.fromkeys(one.note for one in looked if one.note)],
        )

    def _look(
        self, network: StudiedNetwork, x: Tensor, data: ImageData, context: StudyContext
    ) -> "_Looked":
        labels = data.labels.to(context.device)
        module = network.module
        x_adv = context.attack(module, x, labels, self.epsilon, self.attack)
        noisy = (x + matched_noise(x_adv - x, context.seed)).clamp(0.0, 1.0)
        clean = grad_cam(module, x, layer=self.layer)
        attacked = grad_cam(module, x_adv, clean.classes, clean.layer)
        noise = grad_cam(module, noisy, clean.classes, clean.layer)
        size = (x.shape[2], x.shape[3])
        reference = clean.upsampled(size)
        now = attacked.logits.argmax(dim=1)
        table = pd.DataFrame(
            {
                "network": network.title,
                "example": range(len(x)),
                "label": labels.cpu(),
                "clean_prediction": clean.classes.cpu(),
                "adversarial_prediction": now.cpu(),
                "clean_confidence": _confidence(clean, clean.classes),
                "adversarial_confidence": _confidence(attacked, now),
                "survived": (now == clean.classes).cpu(),
                "psnr": psnr(x_adv, x).cpu(),
                "image_ssim": ssim(x_adv, x).cpu(),
            }
        )
        new = grad_cam(module, x_adv, now, clean.layer)
        for change, maps in (("attack", attacked), ("noise", noise), ("new_class", new)):
            found = compare_maps(maps.positive, clean.positive)
            for measure in _MEASURES:
                column = pd.Series(float("nan"), index=table.index)
                column.iloc[found.rows.cpu().numpy()] = getattr(found, measure).cpu().numpy()
                table[f"{measure}_{change}"] = column
            table[f"shift_{change}"] *= x.shape[2] / clean.values.shape[1]  # pixels of the image
        blank = int((clean.blank | attacked.blank).sum())
        note = f"{network.title}: {clean.note}" if clean.note else ""
        if blank:
            note = (
                f"{note} {network.title}: {blank} maps are blank and compared with nothing".strip()
            )
        return _Looked(network, table, x, x_adv, reference, attacked.upsampled(size), note)

    def _panels(self, looked: "list[_Looked]", data: ImageData) -> "Figure":
        """Some images that every network gets right, and the first loses under attack."""
        tables = [one.table for one in looked]
        right = [table["clean_prediction"] == table["label"] for table in tables]
        everywhere = pd.concat(right, axis=1).all(axis=1)
        flipped = ~tables[0]["survived"]
        chosen = [row for row in range(len(data)) if everywhere[row] and flipped[row]]
        chosen = chosen if len(chosen) >= self.rows else list(range(len(data)))
        count = min(self.rows, len(chosen))
        spread = [chosen[number * len(chosen) // count] for number in range(count)]
        return draw_panels([one.panel(row, data.class_names) for row in spread for one in looked])


@dataclass(frozen=True)
class _Looked:
    network: StudiedNetwork
    table: pd.DataFrame
    x: Tensor
    x_adv: Tensor
    maps: Tensor
    maps_adv: Tensor
    note: str

    def panel(self, row: int, names: tuple[str, ...]) -> PanelRow:
        found = self.table.iloc[row]
        before, after = int(found["clean_prediction"]), int(found["adversarial_prediction"])
        return PanelRow(
            broken(self.network.title),
            self.x[row],
            self.x_adv[row],
            names[before],
            names[after],
            float(found["clean_confidence"]),
            float(found["adversarial_confidence"]),
            self.maps[row],
            self.maps_adv[row],
            names[before],
        )


def _confidence(maps: ActivationMaps, classes: Tensor) -> Any:
    shares: Tensor = maps.logits.softmax(dim=1).gather(1, classes[:, None])[:, 0]
    return shares.cpu()


def _summaries(examples: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Means with bootstrap intervals, of all examples and apart by whether the prediction held."""
    for network, of_network in examples.groupby("network", sort=False):
        groups = {
            "all": of_network,
            "survived": of_network[of_network["survived"]],
            "flipped": of_network[~of_network["survived"]],
        }
        for group, rows in groups.items():
            for measure in _MEASURES:
                columns = {change: rows[f"{measure}_{change}"] for change in _CHANGES}
                estimates = {change: bootstrap(one) for change, one in columns.items()}
                estimates["attack - noise"] = paired_difference(*columns.values())
                for change, found in estimates.items():
                    yield {
                        "network": network,
                        "examples": group,
                        "measure": measure,
                        "change": change,
                        "mean": found.value,
                        "low": found.low,
                        "high": found.high,
                        "n": found.n,
                    }


def _figure(summary: pd.DataFrame, context: StudyContext) -> "Figure":
    """Rank correlation and shift, by network: under attack, apart by outcome, and under noise."""
    series = {
        "same-size noise": ("all", "noise"),
        "attack, prediction survived": ("survived", "attack"),
        "attack, prediction changed": ("flipped", "attack"),
    }
    names = [one.title for one in context.networks]
    labels = {"rank_correlation": "rank correlation of the maps", "shift": "shift / pixels"}
    with figure_style():
        figure, axes = panels(2, height=2.4, legend=[*series])
        for one, (measure, label) in zip(axes, labels.items(), strict=True):
            rows = summary[summary["measure"] == measure].rename(columns={"mean": "value"})
            chosen = {
                title: rows[(rows["examples"] == group) & (rows["change"] == change)]
                for title, (group, change) in series.items()
            }
            points_by_network(one, names, chosen, label)
        axes[0].set_ylim(top=1.02)
        axes[1].set_ylim(bottom=0.0)
        legend_below(figure, axes[0])
    return figure


def _notes(summary: pd.DataFrame) -> Iterator[str]:
    of_all = summary[(summary["examples"] == "all") & (summary["measure"] == "rank_correlation")]
    for network, rows in of_all.groupby("network", sort=False):
        found = rows.set_index("change")
        shown = {
            change: f"{one['mean']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
            for change, one in found.iterrows()
        }
        yield (
            f"{network}: rank correlation with the clean image's map {shown['attack']} under "
            f"attack, {shown['noise']} under noise of the same size ({found['n'].iloc[0]} images)"
        )
