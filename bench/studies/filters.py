"""First-layer filters of the two-branch AlexNet: does one branch learn colour, the other not?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from torch import Tensor

from ...models.explain.filters import branch_difference, colour_selectivity, first_filters
from ..api.errors import BadParameter
from ..api.study import StudyContext, StudyDefaults, StudyResult
from ..report.figure_style import WIDTH, figure_style, legend_below, look, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAINING: Mapping[str, Any] = {
    "name": "none",
    "epochs": 10,
    "batch_size": 64,
    "augmentation": "none",
    "gradient_clip": 1.0,
    "validate_every": 10,
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "two branches": {"groups": 2},
    "one branch": {"groups": 1},
}


@dataclass(frozen=True)
class Filters:
    """Colour selectivity of first-layer filters, per branch, over several seeds.

    Krizhevsky, Sutskever & Hinton 2012 (section 6.1) saw one of AlexNet's two branches learn
    filters for colour and the other for edges. Here each of several trainings, which differ in
    their seed alone, gives one number: how far the mean selectivities of the two halves of the
    filters are apart. The seed is the sample unit; in the single-branch network the halves mean
    nothing. Local response normalisation is off: it reaches across branches.

    seeds: trainings of each variant. width: of the network, a share of the paper's.
    """

    seeds: int = 3
    width: float = 0.25

    defaults: ClassVar[StudyDefaults] = StudyDefaults(model="alexnet", defenses=())

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise BadParameter(f"filters: seeds = {self.seeds} must be at least 2")

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each training, a rank test, and the filters of the first."""
        found: list[dict[str, Any]] = []
        drawn: dict[str, Tensor] = {}
        total = len(VARIANTS) * self.seeds
        for variant, setting in VARIANTS.items():
            for seed in range(self.seeds):
                context.progress(len(found), total, f"{variant}, seed {seed}")
                spec = {
                    "name": "alexnet",
                    "width": self.width,
                    "local_response": False,
                    **setting,
                }
                weights = first_filters(context.train(spec, _TRAINING, seed=context.seed + seed))
                selectivity = colour_selectivity(weights)
                first, second = selectivity.chunk(2)
                drawn.setdefault(variant, weights)
                found.append(
                    {
                        "variant": variant,
                        "seed": context.seed + seed,
                        "first_half": float(first.mean()),
                        "second_half": float(second.mean()),
                        "difference": branch_difference(selectivity),
                    }
                )
        context.progress(total, total)
        table = pd.DataFrame(found)
        return StudyResult(
            {"filters": table},
            {"selectivity": _figure(table)}
            | {f"filters-{name.replace(' ', '-')}": _drawn(one) for name, one in drawn.items()},
            list(_notes(table)),
        )


def _figure(table: pd.DataFrame) -> "Figure":
    """Mean selectivity of each half, a point for each seed."""
    variants = list(VARIANTS)
    with figure_style():
        figure, (axes,) = panels(1, height=2.2, legend=["first half", "second half"])
        for number, half in enumerate(("first_half", "second_half")):
            places = [
                variants.index(variant) + 0.1 * (2 * number - 1) for variant in table["variant"]
            ]
            axes.plot(
                places,
                table[half],
                label=half.replace("_", " "),
                **{**look(number), "linestyle": "none"},
            )
        axes.set_xticks(range(len(variants)), variants)
        axes.set(xlim=(-0.5, len(variants) - 0.5), ylabel="mean colour selectivity")
        legend_below(figure, axes)
    return figure


def _drawn(weights: Tensor, columns: int = 16) -> "Figure":
    """The filters as the paper draws them: each scaled to its own range, halves apart."""
    from matplotlib.figure import Figure

    lines = -(-len(weights) // columns)
    with figure_style():
        figure = Figure(figsize=(WIDTH, WIDTH / columns * lines + 0.2), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, one in zip(grid.flat, weights.cpu(), strict=False):
            largest = float(one.abs().max()) or 1.0
            picture = (0.5 + one / (2 * largest)).permute(1, 2, 0).numpy()
            axes.imshow(picture, interpolation="nearest")
    return figure


def _notes(table: pd.DataFrame) -> Iterator[str]:
    from scipy.stats import mannwhitneyu

    each = {name: table[table["variant"] == name]["difference"].to_numpy() for name in VARIANTS}
    for name, values in each.items():
        yield f"{name}: the halves differ by {values.mean():.3f} (mean of {len(values)} seeds)"
    test = mannwhitneyu(*each.values(), alternative="greater")
    yield (
        "that two branches differ more than chance makes halves of one differ: "
        f"Mann-Whitney p = {float(test.pvalue):.2f}"
    )
