"""How visible adversarial examples are: PSNR and SSIM at each epsilon, beside what they break."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch

from ...models.explain.similarity import psnr, ssim
from ..api.epsilon import Norm, checked_norm, parse_grid
from ..api.study import Spec, StudiedNetwork, StudyContext, StudyDefaults, StudyResult
from ..report.figure_style import figure_style, legend_below, panels
from ..report.statistics import bootstrap, interval
from .networks import ROBUST, STANDARD
from .panels import PanelRow, draw_panels
from .plots import curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Visibility:
    """PSNR and SSIM of adversarial examples against their epsilon, and the accuracy left there.

    Each image is attacked with the full budget at each epsilon, and measured whether it was broken
    or not. Two images of one PSNR may look unlike: SSIM follows structure, as eyes do.

    epsilons: radii in `norm`. attack: a spec.
    """

    epsilons: tuple[str | float, ...] = ("1/255", "2/255", "4/255", "8/255", "16/255")
    norm: Norm = "Linf"
    attack: Spec = "pgd"

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=(STANDARD, ROBUST))

    def __post_init__(self) -> None:
        checked_norm(self.norm)
        parse_grid(self.epsilons)

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each network and epsilon; an image at each epsilon."""
        grid = parse_grid(self.epsilons)
        found: list[dict[str, Any]] = []
        rows: list[PanelRow] = []
        total = len(context.networks) * len(grid)
        for network in context.networks:
            for point, row in self._rows(network, context):
                found.append(point)
                rows += [row] if network is context.networks[0] else []
                context.progress(len(found), total, f"{network.title}, {point['epsilon']}")
        table = pd.DataFrame(found)
        return StudyResult(
            {"visibility": table},
            {"visibility": _figure(table), "images": draw_panels(rows)},
            list(_notes(table)),
        )

    def _rows(
        self, network: StudiedNetwork, context: StudyContext
    ) -> Iterator[tuple[dict[str, Any], PanelRow]]:
        data = context.data("test")
        x = data.images.read(torch.arange(len(data))).to(context.device)
        labels = data.labels.to(context.device)
        with torch.no_grad():
            before = network.module(x).softmax(dim=1)
        shown = int((before.argmax(dim=1) == labels).nonzero()[:1].sum())
        for epsilon in parse_grid(self.epsilons):
            moved = context.attack(network.module, x, labels, epsilon.text, self.attack, self.norm)
            with torch.no_grad():
                after = network.module(moved).softmax(dim=1)
            right = int((after.argmax(dim=1) == labels).sum())
            low, high = interval(right, len(x))
            peaks, similar = (bootstrap(one(moved, x).cpu().numpy()) for one in (psnr, ssim))
            row = {
                "network": network.title,
                "norm": self.norm,
                "epsilon": epsilon.text,
                "value": epsilon.value,
                "psnr": peaks.value,
                "psnr_low": peaks.low,
                "psnr_high": peaks.high,
                "ssim": similar.value,
                "ssim_low": similar.low,
                "ssim_high": similar.high,
                "accuracy": right / len(x),
                "accuracy_low": low,
                "accuracy_high": high,
                "n": len(x),
            }
            names, first, second = data.class_names, before[shown], after[shown]
            yield (
                row,
                PanelRow(
                    f"epsilon {epsilon.text}",
                    x[shown].cpu(),
                    moved[shown].cpu(),
                    names[int(first.argmax())],
                    names[int(second.argmax())],
                    float(first.max()),
                    float(second.max()),
                ),
            )


def _figure(table: pd.DataFrame) -> "Figure":
    """PSNR, SSIM and accuracy against epsilon."""
    names = list(dict.fromkeys(table["network"]))
    labels = {"psnr": "PSNR / dB", "ssim": "SSIM", "accuracy": "accuracy under attack"}
    with figure_style():
        figure, axes = panels(3, height=2.2, legend=names)
        for one, (measure, label) in zip(axes, labels.items(), strict=True):
            for number, name in enumerate(names):
                rows = table[table["network"] == name]
                columns = [measure, f"{measure}_low", f"{measure}_high"]
                values = rows[columns].set_axis(["value", "low", "high"], axis=1)
                curve(one, number, name, list(rows["value"]), values)
            first = table[table["network"] == names[0]]
            one.set_xscale("log", base=2)
            one.set_xticks(list(first["value"]), list(first["epsilon"]), fontsize=6.5)
            one.minorticks_off()
            one.set(xlabel=f"epsilon, {table['norm'].iloc[0]}", ylabel=label)
        axes[2].set_ylim(0.0, 1.02)
        legend_below(figure, axes[0])
    return figure


def _notes(table: pd.DataFrame) -> Iterator[str]:
    for network, rows in table.groupby("network", sort=False):
        half = rows[rows["accuracy"] <= 0.5 * rows["accuracy"].max()]
        row = half.iloc[0] if len(half) else rows.iloc[-1]
        yield (
            f"{network}: at {row['epsilon']} the accuracy is {row['accuracy']:.2f} and the "
            f"examples have {row['psnr']:.1f} dB, SSIM {row['ssim']:.3f}"
        )
