"""The gradient at each layer along training, which several studies of architectures ask for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from ....models.explain.gradient_flow import weight_gradients
from ...api.study import Spec, StudyContext
from ...report.figure_style import figure_style, legend_below, panels
from ..plots import curve
from .comparison import Examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradients_along_training(
    context: StudyContext,
    group: str,
    spec: Spec,
    training: Mapping[str, Any],
    epochs: Sequence[int],
    examples: Examples,
) -> Iterator[dict[str, Any]]:
    """A row for each layer after so many epochs: the norm of the loss's gradient at its weights.

    The rate is constant and no epoch is chosen, so that a longer training begins as a shorter one
    does: these are moments of one training. 0 epochs are the first weights.
    """
    for count in epochs:
        module = (
            context.untrained(spec)
            if not count
            else context.train(spec, _constant(training, count))
        )
        found = weight_gradients(module, examples.x, examples.y)
        for place, (layer, norm) in enumerate(found.items(), start=1):
            yield {"network": group, "epochs": count, "place": place, "layer": layer, "norm": norm}


def _constant(training: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    kept = {name: one for name, one in training.items() if name != "validate_every"}
    return {**kept, "epochs": epochs, "schedule": "constant", "validation_share": 0.0}


def gradients_figure(table: pd.DataFrame) -> "Figure":
    """The norm at each block's weights, a panel for each moment, a curve for each network."""
    blocks = by_block(table)
    moments, groups = (list(dict.fromkeys(blocks[one])) for one in ("epochs", "network"))
    shown = blocks[blocks["norm"] > 0.0].rename(columns={"norm": "value"})
    limits = (0.5 * shown["value"].min(), 2.0 * shown["value"].max())
    with figure_style():
        figure, axes = panels(len(moments), height=2.3, legend=groups)
        for one, epochs in zip(axes, moments, strict=True):
            for number, group in enumerate(groups):
                own = shown[(shown["epochs"] == epochs) & (shown["network"] == group)]
                curve(one, number, group, list(own["place"]), own[["value"]])
            title = "first weights" if not epochs else f"after {epochs} epoch{'s'[: epochs > 1]}"
            one.set(title=title, xlabel="block", yscale="log", ylim=limits)
        axes[0].set_ylabel("gradient norm at its weights")
        legend_below(figure, axes[0])
    return figure


def by_block(table: pd.DataFrame) -> pd.DataFrame:
    """The norm at all weights of a block: of layers whose names have two parts in common."""
    names = table["layer"].map(lambda layer: ".".join(layer.split(".")[:2]))
    squares = table.assign(block=names, norm=table["norm"] ** 2)
    found = squares.groupby(["network", "epochs", "block"], sort=False, as_index=False)[
        "norm"
    ].sum()
    found["norm"] **= 0.5
    found["place"] = found.groupby(["network", "epochs"]).cumcount() + 1
    return found


def early_and_late(table: pd.DataFrame) -> Iterator[str]:
    """A note for each network and moment: the gradient at the first layer beside the last's."""
    for (group, epochs), rows in table.groupby(["network", "epochs"], sort=False):
        first, last = rows["norm"].iloc[0], rows["norm"].iloc[-1]
        ratio = first / last if last else float("nan")
        yield (
            f"{group}, {epochs} epochs: gradient norm {first:.2g} at the first layer, "
            f"{last:.2g} at the last, {ratio:.2g} times"
        )
