"""Inception modules: what naive and reduced ones cost as they are stacked, and how they do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import torch
from torch import nn

from ....models.cost import cost
from ....models.inception import Filters, Inception, NaiveInception
from ...api.epsilon import Epsilon
from ...api.errors import BadParameter
from ...api.study import Spec, StudyContext, StudyDefaults, StudyResult
from ...report.figure_style import figure_style, legend_below, panels
from ..networks import STANDARD
from ..plots import curve
from .comparison import (
    WEAK_PGD,
    checked_counts,
    effect_notes,
    effects,
    variants,
    variants_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODULES: Mapping[str, type[nn.Module]] = {"naive": NaiveInception, "reduced": Inception}
FIRST = Filters(64, 96, 128, 16, 32, 32)  # module 3a of arXiv:1409.4842, table 1
_KERNEL = 5


@dataclass(frozen=True)
class InceptionModules:
    """Channels, parameters and multiply-adds of stacked modules, and the saving of 1x1 reductions.

    All modules of a stack have the filters of GoogLeNet's first, 3a. A naive module passes its
    pooled input on, so that channels grow by 224 a module and multiply-adds by the square of the
    number of modules; a reduced one always gives 256.

    A 5x5 branch from C to F channels needs 25 C F multiply-adds a pixel; with a reduction to R it
    needs C R + 25 R F, so the saving is 25 C F / (R (C + 25 F)). With F = R = C / 4 it is 3.45 at
    any C.

    Source: Szegedy et al. 2014, arXiv:1409.4842, section 4.

    modules: the most in a stack. side: pixels of its grid.
    channels: C of the branches whose saving is measured, with F = R = C / 4.
    seeds, width: GoogLeNets to train with each kind of module; no seeds for costs alone.
    training: how. attack, epsilon: of robust accuracy, in Linf.
    """

    modules: int = 12
    side: int = 28
    channels: tuple[int, ...] = (64, 128, 256, 512)
    seeds: int = 3
    width: float = 0.125
    training: Spec = field(default_factory=lambda: dict(STANDARD))
    attack: Spec = field(default_factory=lambda: dict(WEAK_PGD))
    epsilon: str | float = "8/255"

    defaults: ClassVar[StudyDefaults] = StudyDefaults(dataset="digits", defenses=())

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)
        checked_counts("inception", 0, seeds=self.seeds)
        checked_counts("inception", 1, modules=self.modules, side=self.side)
        for one in self.channels:
            if one < 4 or one % 4:
                raise BadParameter(f"inception: channels = {one} must be a multiple of 4")

    def run(self, context: StudyContext) -> StudyResult:
        """Rows of stacks, of 5x5 branches, and of trained networks."""
        growth = pd.DataFrame(stacked(self.modules, self.side))
        savings = pd.DataFrame(_savings(self.channels, self.side))
        tables = {"growth": growth, "reductions": savings}
        figures = {"growth": _growth_figure(growth)}
        notes = list(_cost_notes(growth, savings))
        if self.seeds:
            table = self._accuracies(context)
            found = effects(table, "naive")
            tables |= {"accuracy": table, "effects": found}
            figures["accuracy"] = variants_figure(table)
            notes += effect_notes(found, "naive")
        return StudyResult(tables, figures, notes)

    def _accuracies(self, context: StudyContext) -> pd.DataFrame:
        specs = {
            kind: {"name": "googlenet", "width": self.width, "auxiliary": False, "modules": kind}
            for kind in MODULES
        }
        return pd.DataFrame(
            variants(context, specs, self.training, self.seeds, self.epsilon, self.attack)
        )


def stacked(modules: int, side: int, filters: Filters = FIRST) -> Iterator[dict[str, Any]]:
    """Costs of stacks of 1 to `modules` modules of either kind, from 192 channels; measured.

    The module on top alone is in `top_multiply_adds`.
    """
    with torch.device("meta"):
        for kind, module in MODULES.items():
            channels, parameters, multiply_adds = 192, 0, 0
            for number in range(1, modules + 1):
                made: Any = module(channels, filters)
                found = cost(made, (channels, side, side))
                channels = made.outputs
                parameters += found.parameters
                multiply_adds += found.multiply_adds
                yield {
                    "modules": kind,
                    "count": number,
                    "channels": channels,
                    "parameters": parameters,
                    "multiply_adds": multiply_adds,
                    "top_multiply_adds": found.multiply_adds,
                }


def saving(channels: int, reduced: int, filters: int, kernel: int = _KERNEL) -> float:
    """How many times fewer multiply-adds a branch needs with a reduction, as derived above.

    >>> round(saving(256, 64, 64), 2)
    3.45
    """
    area = kernel**2
    return area * channels * filters / (reduced * (channels + area * filters))


def _savings(channels: tuple[int, ...], side: int) -> Iterator[dict[str, Any]]:
    with torch.device("meta"):
        for count in channels:
            few = count // 4
            shape = (count, side, side)
            direct = nn.Conv2d(count, few, _KERNEL, padding=_KERNEL // 2)
            wide = nn.Conv2d(few, few, _KERNEL, padding=_KERNEL // 2)
            through = nn.Sequential(nn.Conv2d(count, few, 1), nn.ReLU(), wide)
            naive, reduced = (cost(one, shape).multiply_adds for one in (direct, through))
            yield {
                "channels": count,
                "filters": few,
                "naive_multiply_adds": naive,
                "reduced_multiply_adds": reduced,
                "saving_measured": naive / reduced,
                "saving_derived": saving(count, few, few),
            }


def _growth_figure(growth: pd.DataFrame) -> "Figure":
    """Channels, parameters and multiply-adds of a stack by its modules."""
    from matplotlib.ticker import MaxNLocator

    columns = {"channels": "channels at the top", "parameters": "parameters"}
    columns["multiply_adds"] = "multiply-adds"
    with figure_style():
        figure, axes = panels(3, height=2.2, legend=list(MODULES))
        for one, (column, label) in zip(axes, columns.items(), strict=True):
            for number, kind in enumerate(MODULES):
                own = growth[growth["modules"] == kind]
                rows = own.rename(columns={column: "value"})
                curve(one, number, kind, list(own["count"]), rows[["value"]])
            one.set(xlabel="modules", ylabel=label)
            one.set_ylim(bottom=0)
            one.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_below(figure, axes[0])
    return figure


def _cost_notes(growth: pd.DataFrame, savings: pd.DataFrame) -> Iterator[str]:
    last = growth[growth["count"] == growth["count"].max()].set_index("modules")
    for kind, row in last.iterrows():
        yield (
            f"{row['count']} {kind} modules: {row['channels']} channels, {row['parameters']:,} "
            f"parameters, {row['multiply_adds'] / 1e6:,.0f} million multiply-adds"
        )
    for row in savings.itertuples():
        yield (
            f"5x5 branch at {row.channels} channels: the reduction saves "
            f"{row.saving_measured:.2f} times measured, {row.saving_derived:.2f} derived"
        )
