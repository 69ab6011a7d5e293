"""Targeted against untargeted: the smallest epsilon that reaches each kind of class."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..api.epsilon import parse_grid
from ..api.errors import BadParameter
from ..api.study import Spec, StudiedNetwork, StudyContext, StudyDefaults, StudyResult
from ..report.figure_style import figure_style, legend_below, panels
from ..report.statistics import interval
from .networks import ROBUST, STANDARD
from .plots import curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOALS = ("any other class", "most likely other", "random other", "least likely")


@dataclass(frozen=True)
class TargetedAttacks:
    """The smallest epsilon that gives any wrong class, and the most likely, a random, the least.

    Each image is attacked with the full budget at each epsilon of the grid, and broken at the
    smallest where that succeeds. The table of classes has the median of the smallest epsilon to
    every class, from the images of every other.

    epsilons: the grid, in Linf. attack: a spec of one that can be targeted.
    """

    epsilons: tuple[str | float, ...] = ("1/255", "2/255", "4/255", "8/255", "16/255", "32/255")
    attack: Spec = "pgd"

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=(STANDARD, ROBUST))

    def __post_init__(self) -> None:
        parse_grid(self.epsilons)

    def run(self, context: StudyContext) -> StudyResult:
        """Success at each epsilon by goal, and medians from class to class."""
        total = len(context.networks) * len(GOALS)
        found: list[pd.DataFrame] = []
        for network in context.networks:
            for goal in GOALS:
                context.progress(len(found), total, f"{network.title}, {goal}")
                found.append(self._smallest(network, goal, context))
        context.progress(total, total)
        examples = pd.concat(found, ignore_index=True)
        grid = parse_grid(self.epsilons)
        success = pd.DataFrame(_success(examples, [one.text for one in grid]))
        classes = _classes(examples)
        return StudyResult(
            {"success": success, "classes": classes, "examples": examples},
            {"targets": _figure(success, {one.text: one.value for one in grid})},
            list(_notes(success)),
        )

    def _smallest(self, network: StudiedNetwork, goal: str, context: StudyContext) -> pd.DataFrame:
        """One row for each image that is right: the smallest epsilon that reaches the goal."""
        data = context.data("test")
        x = data.images.read(torch.arange(len(data))).to(context.device)
        labels = data.labels.to(context.device)
        with torch.no_grad():
            logits = network.module(x)
        right = (logits.argmax(dim=1) == labels).nonzero()[:, 0]
        if not len(right):
            raise BadParameter(f"{network.title} gets no image right: there is nothing to attack")
        x, labels, logits = x[right], labels[right], logits[right]
        targets = _targets(goal, logits, labels, context)
        grid = parse_grid(self.epsilons)
        smallest = np.full(len(x), len(grid))
        for point, epsilon in reversed(list(enumerate(grid))):
            moved = context.attack(
                network.module, x, labels, epsilon.text, self.attack, targets=targets
            )
            with torch.no_grad():
                predicted = network.module(moved).argmax(dim=1)
            reached = predicted != labels if targets is None else predicted == targets
            smallest[reached.cpu().numpy()] = point
        names = data.class_names
        texts = [*(one.text for one in grid), ""]
        return pd.DataFrame(
            {
                "network": network.title,
                "goal": goal,
                "example": right.cpu().numpy(),
                "label": [names[one] for one in labels.tolist()],
                "target": "" if targets is None else [names[one] for one in targets.tolist()],
                "smallest_epsilon": [texts[one] for one in smallest],
                "value": [grid[one].value if one < len(grid) else np.inf for one in smallest],
            }
        )


def _targets(goal: str, logits: Tensor, labels: Tensor, context: StudyContext) -> Tensor | None:
    """(N,) classes to reach; None for any but the label."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    if goal == "most likely other":
        return others.argmax(dim=1)
    if goal == "least likely":
        return logits.scatter(1, labels[:, None], torch.inf).argmin(dim=1)
    if goal == "random other":
        steps = context.draws("targets").integers(1, logits.shape[1], size=len(labels))
        return (labels + torch.as_tensor(steps, device=labels.device)) % logits.shape[1]
    return None


def _success(examples: pd.DataFrame, grid: list[str]) -> Iterator[dict[str, Any]]:
    for (network, goal), rows in examples.groupby(["network", "goal"], sort=False):
        for point, epsilon in enumerate(grid):
            broken = int(rows["smallest_epsilon"].isin(grid[: point + 1]).sum())
            low, high = interval(broken, len(rows))
            yield {
                "network": network,
                "goal": goal,
                "epsilon": epsilon,
                "success_rate": broken / len(rows),
                "low": low,
                "high": high,
                "median_smallest": float(rows["value"].median()),
                "n": len(rows),
            }


def _classes(examples: pd.DataFrame) -> pd.DataFrame:
    """Median smallest epsilon from class to class, over the targeted goals."""
    targeted = examples[examples["target"] != ""]
    grouped = targeted.groupby(["network", "label", "target"], sort=True)["value"]
    return grouped.agg(median_smallest="median", n="size").reset_index()


def _figure(success: pd.DataFrame, values: dict[str, float]) -> "Figure":
    """Success against epsilon by goal, a panel for each network."""
    names = list(dict.fromkeys(success["network"]))
    with figure_style():
        figure, axes = panels(len(names), height=2.4, legend=GOALS)
        for one, name in zip(axes, names, strict=True):
            for number, goal in enumerate(GOALS):
                rows = success[(success["network"] == name) & (success["goal"] == goal)]
                shown = rows[["success_rate", "low", "high"]].set_axis(
                    ["value", "low", "high"], axis=1
                )
                curve(one, number, goal, [values[text] for text in rows["epsilon"]], shown)
            one.set_xscale("log", base=2)
            one.set_xticks(list(values.values()), list(values))
            one.minorticks_off()
            one.set(title=name, xlabel="epsilon, Linf", ylabel="success rate", ylim=(0.0, 1.02))
        legend_below(figure, axes[0])
    return figure


def _notes(success: pd.DataFrame) -> Iterator[str]:
    for network, rows in success.groupby("network", sort=False):
        medians = rows.groupby("goal", sort=False)["median_smallest"].first() * 255
        shown = ", ".join(
            f"{goal} " + ("beyond the grid" if np.isinf(one) else f"{one:.0f}/255")
            for goal, one in medians.items()
        )
        yield f"{network}: median smallest epsilon: {shown}"
