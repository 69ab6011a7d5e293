"""The loss around trained networks: slices in weight space and in input space, and curvature."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import Tensor

from ....models.explain.curvature import largest_eigenvalue
from ....models.explain.loss_surface import (
    doubling_width,
    filter_normalised_direction,
    input_slice,
    loss_slice,
)
from ...api.epsilon import Epsilon
from ...api.study import Spec, StudyContext, StudyDefaults, StudyResult
from ...report.figure_style import figure_style, legend_below, panels
from ...report.statistics import bootstrap
from ..networks import STANDARD
from ..plots import curve
from .comparison import (
    WEAK_PGD,
    Compared,
    Examples,
    accuracies,
    checked_counts,
    over_seeds,
    residual_and_plain,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIRECTIONS = ("adversarial", "random")
_LEVELS = 12  # of a plane's contours


@dataclass(frozen=True)
class LossSurface:
    """Filter-normalised slices of the loss, slices towards an attack, and the largest eigenvalue.

    In weight space one step adds to every filter another of its own length; the width is that of
    the valley in which the loss is below twice its minimum's. In input space one step is epsilon
    towards the end of an attack, or to a random corner of the Linf ball. The eigenvalue of the
    Hessian is the largest in magnitude; unlike the slices it changes when weights before a
    normalisation are scaled.

    Source: Li, Xu, Taylor, Studer & Goldstein 2018, arXiv:1712.09913.

    seeds, depth, width: residual and plain networks to train, beside those that the user names; no
        seeds for these alone. training: how.
    directions: slices of each network. reach, steps: how far each goes, and in how many steps on
        either side. plane_steps: the same of the plane of the first two directions.
    iterations: of the power iteration, at most.
    attack, epsilon: of robust accuracy and of the slices in input space, in Linf.
    """

    seeds: int = 3
    depth: int = 20
    width: float = 0.25
    training: Spec = field(default_factory=lambda: dict(STANDARD))
    directions: int = 5
    reach: float = 1.0
    steps: int = 15
    plane_steps: int = 6
    iterations: int = 60
    attack: Spec = field(default_factory=lambda: dict(WEAK_PGD))
    epsilon: str | float = "8/255"

    defaults: ClassVar[StudyDefaults] = StudyDefaults(dataset="digits", defenses=())

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)
        checked_counts("loss-surface", 0, seeds=self.seeds)
        checked_counts("loss-surface", 2, directions=self.directions)
        checked_counts(
            "loss-surface",
            1,
            steps=self.steps,
            plane_steps=self.plane_steps,
            iterations=self.iterations,
        )

    def run(self, context: StudyContext) -> StudyResult:
        """Tables of slices, planes and a summary of each network."""
        networks = residual_and_plain(context, self.seeds, self.depth, self.width, self.training)
        examples = Examples.of(context)
        slices: list[dict[str, Any]] = []
        inputs: list[dict[str, Any]] = []
        summary: list[dict[str, Any]] = []
        planes: dict[str, Tensor] = {}
        for number, one in enumerate(networks):
            context.progress(number, len(networks), f"{one.group}, seed {one.seed}")
            own = list(self._slices(one, examples))
            slices += own
            inputs += self._input_slices(one, examples, context)
            summary.append(self._summary(one, examples, context, pd.DataFrame(own)))
            if one.group not in planes:
                planes[one.group] = self._plane(one, examples)
        context.progress(1, 1)
        tables = {
            "summary": pd.DataFrame(summary),
            "slices": pd.DataFrame(slices),
            "inputs": pd.DataFrame(inputs),
            "planes": pd.DataFrame(self._plane_rows(planes)),
        }
        figures = {
            "slices": _slices_figure(tables["slices"]),
            "planes": self._planes_figure(planes),
            "inputs": _inputs_figure(tables["inputs"], self.epsilon),
        }
        return StudyResult(tables, figures, list(_notes(tables["summary"])))

    def _line(self, steps: int) -> Tensor:
        """Symmetric about 0, with 0 among them."""
        return torch.arange(-steps, steps + 1, dtype=torch.float64) * (self.reach / steps)

    def _slices(self, one: Compared, examples: Examples) -> Iterator[dict[str, Any]]:
        line = self._line(self.steps)
        for seed in range(self.directions):
            direction = filter_normalised_direction(one.module, seed)
            losses = loss_slice(one.module, examples.x, examples.y, [direction], line)
            for step, loss in zip(line.tolist(), losses.tolist(), strict=True):
                yield {
                    "network": one.group,
                    "seed": one.seed,
                    "direction": seed,
                    "step": step,
                    "loss": loss,
                    "width": doubling_width(line, losses),
                }

    def _plane(self, one: Compared, examples: Examples) -> Tensor:
        directions = [filter_normalised_direction(one.module, seed) for seed in range(2)]
        line = self._line(self.plane_steps)
        return loss_slice(one.module, examples.x, examples.y, directions, line)

    def _plane_rows(self, planes: dict[str, Tensor]) -> Iterator[dict[str, Any]]:
        line = self._line(self.plane_steps).tolist()
        for group, losses in planes.items():
            for first, row in zip(line, losses.tolist(), strict=True):
                for second, loss in zip(line, row, strict=True):
                    yield {"network": group, "first": first, "second": second, "loss": loss}

    def _input_slices(
        self, one: Compared, examples: Examples, context: StudyContext
    ) -> Iterator[dict[str, Any]]:
        """The loss of each image between it and twice as far as the attack went."""
        attacked = context.attack(one.module, examples.x, examples.y, self.epsilon, self.attack)
        draws = context.draws("corners").integers(0, 2, examples.x.shape) * 2 - 1
        corners = torch.from_numpy(draws).to(examples.x) * Epsilon.parse(self.epsilon).value
        line = torch.linspace(0.0, 2.0, 11)
        for kind, ways in zip(DIRECTIONS, (attacked - examples.x, corners), strict=True):
            losses = input_slice(one.module, examples.x, examples.y, ways, line)
            for step, each in zip(line.tolist(), losses, strict=True):
                found = bootstrap(each.numpy())
                yield {
                    "network": one.group,
                    "seed": one.seed,
                    "direction": kind,
                    "step": step,
                    "loss": found.value,
                    "low": found.low,
                    "high": found.high,
                }

    def _summary(
        self, one: Compared, examples: Examples, context: StudyContext, slices: pd.DataFrame
    ) -> dict[str, Any]:
        sharpest = largest_eigenvalue(
            one.module, examples.x, examples.y, iterations=self.iterations, seed=context.seed
        )
        widths = slices.groupby("direction")["width"].first()
        return {
            "network": one.group,
            "seed": one.seed,
            **accuracies(context, one.module, examples, self.epsilon, self.attack),
            "loss": float(slices["loss"][slices["step"] == 0.0].iloc[0]),
            "width": widths.mean(),
            "width_smallest": widths.min(),
            "width_largest": widths.max(),
            "eigenvalue": sharpest.value,
            "eigenvalue_residual": sharpest.residual,
        }

    def _planes_figure(self, planes: dict[str, Tensor]) -> "Figure":
        """Contours of the loss, of one network of each group, all on one logarithmic scale."""
        import numpy as np
        from matplotlib.colors import LogNorm

        line = self._line(self.plane_steps).numpy()
        low = max(min(float(one.min()) for one in planes.values()), 1e-4)
        high = max(max(float(one.max()) for one in planes.values()), 2 * low)
        levels = np.geomspace(low, high, _LEVELS).tolist()
        with figure_style():
            figure, axes = panels(len(planes), height=2.9)
            for one, (group, losses) in zip(axes, planes.items(), strict=True):
                filled = one.contourf(
                    line,
                    line,
                    losses.T.numpy().clip(low, high),
                    levels=levels,
                    norm=LogNorm(low, high),
                    cmap="cividis",
                )
                one.contour(
                    line, line, losses.T.numpy(), levels=levels, colors="white", linewidths=0.4
                )
                one.plot(0, 0, "w+")
                one.set(title=group, xlabel="first direction", ylabel="second direction")
                one.set_aspect("equal")
                one.grid(visible=False)
            bar = figure.colorbar(filled, ax=list(axes), shrink=0.8, label="loss")
            bar.set_ticks(levels[::3], labels=[f"{one:.2g}" for one in levels[::3]])
            bar.minorticks_off()
        return figure


def _slices_figure(slices: pd.DataFrame) -> "Figure":
    """The mean loss over directions and seeds, with the band from the lowest to the highest."""
    groups = list(dict.fromkeys(slices["network"]))
    with figure_style():
        figure, axes = panels(2, height=2.5, legend=groups)
        for number, group in enumerate(groups):
            own = slices[slices["network"] == group]
            base = own[own["step"] == 0.0].set_index(["seed", "direction"])["loss"]
            start = [
                base[seed, way] for seed, way in zip(own["seed"], own["direction"], strict=True)
            ]
            for one, values in zip(axes, (own["loss"], own["loss"] / start), strict=True):
                each = own.assign(value=values).groupby("step")["value"]
                band = pd.DataFrame({"value": each.mean(), "low": each.min(), "high": each.max()})
                curve(one, number, group, list(band.index), band)
        axes[0].set(ylabel="loss", yscale="log", xlabel="step, in lengths of the filters")
        axes[1].set(
            ylabel="loss, of its minimum's", yscale="log", xlabel="step, in lengths of the filters"
        )
        axes[1].axhline(2.0, color="0.5", lw=0.8, ls=":")
        legend_below(figure, axes[0])
    return figure


def _inputs_figure(inputs: pd.DataFrame, epsilon: str | float) -> "Figure":
    """The mean loss of images along two directions, over seeds."""
    series = list(inputs.groupby(["network", "direction"], sort=False))
    labels = [f"{group}, {kind}" for (group, kind), _ in series]
    with figure_style():
        figure, (axes,) = panels(1, height=2.5, legend=labels)
        for number, (label, (_, rows)) in enumerate(zip(labels, series, strict=True)):
            alone = rows["seed"].nunique() == 1
            found = (
                rows.rename(columns={"loss": "value"})
                if alone
                else over_seeds(rows, ["step"], "loss")
            )
            curve(axes, number, label, list(found["step"]), found)
        axes.set(xlabel=f"distance from the image, in units of {epsilon}", ylabel="loss")
        axes.set_ylim(bottom=0.0)
        legend_below(figure, axes)
    return figure


def _notes(summary: pd.DataFrame) -> Iterator[str]:
    columns = ("accuracy", "robust_accuracy", "loss", "width", "eigenvalue")
    each = {name: over_seeds(summary, ["network"], name).set_index("network") for name in columns}
    for group in each["loss"].index:
        shown = ", ".join(
            f"{name.replace('_', ' ')} {found.loc[group, 'value']:.3g}"
            + (
                f" [{found.loc[group, 'low']:.3g}, {found.loc[group, 'high']:.3g}]"
                if found.loc[group, "n"] > 1
                else ""
            )
            for name, found in each.items()
        )
        yield f"{group}: {shown} (means over {each['loss'].loc[group, 'n']:.0f} seeds)"
