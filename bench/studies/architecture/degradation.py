"""Degradation: plain against residual networks by depth, and the gradient at each layer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from ...api.epsilon import Epsilon
from ...api.errors import BadParameter
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
    correct,
    over_seeds,
    trained,
)
from .gradients import early_and_late, gradients_along_training, gradients_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCKS = ("residual", "plain")
_SHOWN = {"training_accuracy": "training accuracy", **MEASURES}
_TRAIN_EXAMPLES = 500


@dataclass(frozen=True)
class Degradation:
    """Training, test and robust accuracy by depth with and without shortcuts; gradients by layer.

    Degradation is that a deeper plain network has a lower *training* accuracy than a shallower one:
    it is not overfitting. Gradients are those of the deepest networks, at the first weights and
    along a training with a constant rate.

    Source: He, Zhang, Ren & Sun 2015, arXiv:1512.03385, section 4.2 and figure 6.

    depths, width: of the networks. seeds: trainings of each. training: how.
    gradient_epochs: after how many epochs the gradients are read; 0 is before training.
    attack, epsilon: of robust accuracy, in Linf.
    """

    depths: Sequence[int] = (20, 32, 44, 56)
    width: float = 0.25
    seeds: int = 3
    training: Mapping[str, Any] = field(default_factory=lambda: dict(STANDARD))
    gradient_epochs: Sequence[int] = (0, 1, 4)
    attack: Spec = field(default_factory=lambda: dict(WEAK_PGD))
    epsilon: str | float = "8/255"

    defaults: ClassVar[StudyDefaults] = StudyDefaults(dataset="digits", defenses=(), n_examples=200)

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)
        checked_counts("degradation", 1, seeds=self.seeds, depths=len(self.depths))
        if min(self.gradient_epochs, default=0) < 0:
            raise BadParameter("degradation: gradient_epochs must be 0 or more")

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each training, and for each layer of the deepest networks at each moment."""
        table = pd.DataFrame(self._trainings(context))
        deepest = max(self.depths)
        examples = Examples.of(context, "train", most=128)
        gradients = pd.DataFrame(
            row
            for block in BLOCKS
            for row in gradients_along_training(
                context,
                f"{block}, {deepest} layers",
                self._spec(block, deepest),
                self.training,
                self.gradient_epochs,
                examples,
            )
        )
        return StudyResult(
            {"accuracy": table, "gradients": gradients},
            {"accuracy": _figure(table), "gradients": gradients_figure(gradients)},
            [*_notes(table), *early_and_late(gradients)],
        )

    def _spec(self, block: str, depth: int) -> dict[str, Any]:
        return {"name": "resnet", "depth": depth, "width": self.width, "block": block}

    def _trainings(self, context: StudyContext) -> Iterator[dict[str, Any]]:
        examples = Examples.of(context)
        train = Examples.of(context, "train", most=_TRAIN_EXAMPLES)
        specs = {
            f"{block} {depth}": self._spec(block, depth)
            for block in BLOCKS
            for depth in self.depths
        }
        for one in trained(context, specs, self.training, self.seeds):
            block, depth = one.group.split()
            yield {
                "block": block,
                "depth": int(depth),
                "seed": one.seed,
                "training_accuracy": float(correct(one.module, train).double().mean()),
                **accuracies(context, one.module, examples, self.epsilon, self.attack),
            }


def _figure(table: pd.DataFrame) -> "Figure":
    """Accuracies against depth, with the interval over seeds."""
    with figure_style():
        figure, axes = panels(len(_SHOWN), height=2.3, legend=BLOCKS)
        for one, (column, label) in zip(axes, _SHOWN.items(), strict=True):
            for number, block in enumerate(BLOCKS):
                found = over_seeds(table[table["block"] == block], ["depth"], column)
                found[["low", "high"]] = found[["low", "high"]].clip(0.0, 1.0)
                curve(one, number, block, list(found["depth"]), found)
            one.set(xlabel="layers", ylabel=label, ylim=(-0.02, 1.02))
            one.set_xticks(sorted(set(table["depth"])))
        legend_below(figure, axes[0])
    return figure


def _notes(table: pd.DataFrame) -> Iterator[str]:
    for (block, depth), rows in table.groupby(["block", "depth"], sort=False):
        means = (f"{label} {rows[column].mean():.2f}" for column, label in _SHOWN.items())
        yield f"{block}, {depth} layers: {', '.join(means)} (mean of {len(rows)} seeds)"
