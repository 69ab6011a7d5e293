"""The stride of AlexNet's first layer, and the same stride in a late one: cost and accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from ...api.epsilon import Epsilon
from ...api.study import Spec, StudyContext, StudyDefaults, StudyResult
from ...report.figure_style import figure_style, legend_below, look, panels
from ..networks import STANDARD
from .comparison import MEASURES, WEAK_PGD, checked_counts, effect_notes, effects, variants

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BASELINE = "stride 1"


@dataclass(frozen=True)
class Stride:
    """AlexNet with the first layer's stride at 1, 2 and 4, or the same in its last convolution.

    A stride of s in the first layer leaves all later ones a grid of 1 / s^2, and with it about as
    much of the cost; in the last convolution it saves hardly anything but the first fully connected
    layer. Poolings are of 2x2, so that 32x32 images reach the end of every variant.

    Source: Krizhevsky, Sutskever & Hinton 2012, section 3.5, for the stride of 4.

    strides: of the first convolution. late: of the last one, the first being 1.
    seeds, width: of the networks. training: how. attack, epsilon: of robust accuracy, in Linf.
    """

    strides: Sequence[int] = (1, 2, 4)
    late: Sequence[int] = (2, 4)
    seeds: int = 3
    width: float = 0.125
    training: Spec = field(default_factory=lambda: {**STANDARD, "batch_size": 64})
    attack: Spec = field(default_factory=lambda: dict(WEAK_PGD))
    epsilon: str | float = "2/255"

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=(), n_examples=200)

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)
        every = enumerate((*self.strides, *self.late))
        checked_counts("stride", 1, seeds=self.seeds, **{f"stride[{i}]": s for i, s in every})

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each training."""
        specs = {"stride 1": self._spec()}
        specs |= {f"stride {one}": self._spec(stride=one) for one in self.strides if one != 1}
        specs |= {f"late stride {one}": self._spec(late_stride=one) for one in self.late}
        table = pd.DataFrame(
            variants(context, specs, self.training, self.seeds, self.epsilon, self.attack)
        )
        found = effects(table, _BASELINE)
        costs = table.groupby("variant", sort=False)["multiply_adds"].first()
        notes = [
            f"{name}: {count / 1e6:.2f} million multiply-adds, "
            f"{costs[_BASELINE] / count:.1f} times fewer than {_BASELINE}"
            for name, count in costs.items()
        ]
        return StudyResult(
            {"accuracy": table, "effects": found},
            {"cost": _figure(table)},
            [*notes, *effect_notes(found, _BASELINE)],
        )

    def _spec(self, stride: int = 1, late_stride: int = 1) -> dict[str, Any]:
        given = {"pool": 2, "stride": stride, "late_stride": late_stride, "stem": "small"}
        return {"name": "alexnet", "width": self.width, **given}


def _figure(table: pd.DataFrame) -> "Figure":
    """Accuracies against cost, a point for each training."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    names = list(dict.fromkeys(table["variant"]))
    with figure_style():
        figure, axes = panels(2, height=2.5, legend=names)
        for one, (column, label) in zip(axes, MEASURES.items(), strict=True):
            for number, name in enumerate(names):
                own = table[table["variant"] == name]
                style = {**look(number), "linestyle": "none"}
                one.plot(own["multiply_adds"] / 1e6, own[column], label=name, **style)
            one.set(xlabel="million multiply-adds of an image", ylabel=label, xscale="log")
            one.set_ylim(-0.02, 1.02)
            one.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            one.xaxis.set_major_formatter(ScalarFormatter())
            one.xaxis.set_minor_formatter(NullFormatter())
        legend_below(figure, axes[0])
    return figure
