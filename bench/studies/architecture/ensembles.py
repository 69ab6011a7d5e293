"""Residual networks as ensembles: what deleting, exchanging and unbypassing blocks does to them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from torch import nn

from ....models.deletion import block_names, delete_blocks
from ....models.explain.block_edits import (
    random_blocks,
    random_swaps,
    remove_shortcuts,
    swap_blocks,
)
from ....models.explain.residual_paths import (
    gradient_by_path_length,
    path_counts,
    sampled_path_gradients,
)
from ...api.epsilon import Epsilon
from ...api.errors import BadParameter
from ...api.study import Spec, StudyContext, StudyDefaults, StudyResult
from ...report.figure_style import figure_style, legend_below, panels
from ...report.statistics import bootstrap
from ..networks import STANDARD
from ..plots import curve
from .comparison import (
    MEASURES,
    WEAK_PGD,
    Compared,
    Examples,
    accuracies,
    checked_counts,
    over_seeds,
    residual_and_plain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DELETED, SWAPPED, UNBYPASSED = "deleted", "swapped", "shortcut removed"
SINGLE, SEVERAL = (DELETED, UNBYPASSED), ("random blocks deleted", "random pairs swapped")
_TAIL = 0.025  # on either side, of what the interval of lengths leaves out


@dataclass(frozen=True)
class Ensembles:
    """Blocks deleted, swapped, or without shortcut; the gradient by the length of its paths.

    Every edited network is attacked itself. In a plain network a block that changes the shape
    cannot be deleted, and there is no shortcut to remove; paths are those of residual networks.

    Source: Veit, Wilber & Belongie 2016, arXiv:1605.06431.

    seeds, depth, width: residual and plain networks to train, beside those that the user names; no
        seeds for these alone. training: how.
    counts: how many blocks to delete at random, and pairs to swap. draws: of each count.
    path_images, path_draws: images of the gradients, and random paths of each length.
    attack, epsilon: of robust accuracy, in Linf.
    """

    seeds: int = 2
    depth: int = 20
    width: float = 0.5
    training: Spec = field(default_factory=lambda: dict(STANDARD))
    counts: Sequence[int] = (2, 4, 6)
    draws: int = 5
    path_images: int = 20
    path_draws: int = 100
    attack: Spec = field(default_factory=lambda: dict(WEAK_PGD))
    epsilon: str | float = "2/255"

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=())

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)
        checked_counts("ensembles", 0, seeds=self.seeds)
        checked_counts(
            "ensembles",
            1,
            draws=self.draws,
            path_images=self.path_images,
            path_draws=self.path_draws,
        )
        checked_counts("ensembles", 1, **{f"counts[{i}]": one for i, one in enumerate(self.counts)})

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each edit of each network, and for each length of path."""
        networks = residual_and_plain(context, self.seeds, self.depth, self.width, self.training)
        examples, few = Examples.of(context), Examples.of(context, most=self.path_images)
        edits: list[dict[str, Any]] = []
        paths: list[dict[str, Any]] = []
        for one in networks:
            made = list(self._edits(one.module, context.seed))
            for number, (edit, count, blocks, module) in enumerate(made):
                context.progress(number, len(made), f"{one.group}, seed {one.seed}: {edit}")
                found = accuracies(context, module, examples, self.epsilon, self.attack)
                edits.append(_row(one, edit=edit, count=count, blocks=blocks, **found))
            if _has_paths(one.module):
                paths += self._paths(one, few, context)
        context.progress(1, 1)
        table, by_length = pd.DataFrame(edits), pd.DataFrame(paths)
        summary = pd.DataFrame(_summaries(table))
        figures = {"single-blocks": _single(table), "several-blocks": _several(table)}
        tables = {"summary": summary, "edits": table}
        if paths:
            figures["paths"] = _paths_figure(by_length)
            tables |= {"paths": by_length, "lengths": pd.DataFrame(_lengths(by_length))}
        return StudyResult(tables, figures, list(_notes(summary, tables.get("lengths"))))

    def _edits(self, module: nn.Module, seed: int) -> Iterator[tuple[str, int, str, nn.Module]]:
        """What was done, to how many blocks, to which, and the network then."""
        yield "none", 0, "", module
        names = block_names(module)
        for name in names:
            with suppress(BadParameter):  # a plain block that must stay
                yield DELETED, 1, name, delete_blocks(module, [name])
        for name in names:
            if isinstance(getattr(module.get_submodule(name), "shortcut", None), nn.Module):
                yield UNBYPASSED, 1, name, remove_shortcuts(module, [name])
        for count in self.counts:
            for draw in range(self.draws):
                with suppress(BadParameter):  # no two blocks of equal shape
                    pairs = random_swaps(module, count, seed + draw)
                    yield SEVERAL[1], count, _listed(pairs), swap_blocks(module, pairs)
                with suppress(BadParameter):  # more blocks than there are, or one that must stay
                    chosen = random_blocks(module, count, seed + draw)
                    yield SEVERAL[0], count, " ".join(chosen), delete_blocks(module, chosen)

    def _paths(
        self, one: Compared, examples: Examples, context: StudyContext
    ) -> Iterator[dict[str, Any]]:
        """A row for each length: its part of all paths, and of the gradient in two ways."""
        context.progress(0, 1, f"{one.group}, seed {one.seed}: paths")
        exact = gradient_by_path_length(one.module, examples.x, examples.y)
        sampled = sampled_path_gradients(
            one.module, examples.x, examples.y, draws=self.path_draws, seed=context.seed
        )
        counts = path_counts(len(exact.blocks))
        carried = sampled.mean(dim=1) * counts
        for length in range(len(counts)):
            single = bootstrap(sampled[length].numpy())
            yield _row(
                one,
                length=length,
                share_of_paths=float(counts[length] / counts.sum()),
                exact_norm=float(exact.norms[length].mean()),
                exact_share=float(exact.shares[length]),
                sampled_norm=single.value,
                sampled_norm_low=single.low,
                sampled_norm_high=single.high,
                sampled_share=float(carried[length] / carried.sum()),
            )


def _row(one: Compared, **values: Any) -> dict[str, Any]:
    return {"network": one.group, "seed": one.seed, **values}


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{one}/{other}" for one, other in pairs)


def _has_paths(module: nn.Module) -> bool:
    return all(hasattr(module.get_submodule(name), "shortcut") for name in block_names(module))


def _opens_stage(block: str) -> bool:
    """Whether a block changes the shape: the first of a stage other than the first."""
    return block.endswith(".0") and not block.startswith("stage1.")


def _summaries(edits: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Of each network and kind of edit: the mean and the worst accuracies."""
    kinds = edits["edit"].where(
        ~edits["edit"].isin(SINGLE) | ~edits["blocks"].map(_opens_stage),
        edits["edit"] + ", opens a stage",
    )
    by = ["network", "seed", "kind", "count"]
    for key, rows in edits.assign(kind=kinds).groupby(by, sort=False):
        yield {
            **dict(zip(by, key, strict=True)),
            "accuracy": rows["accuracy"].mean(),
            "worst_accuracy": rows["accuracy"].min(),
            "robust_accuracy": rows["robust_accuracy"].mean(),
            "worst_robust_accuracy": rows["robust_accuracy"].min(),
            "n": len(rows),
        }


def _lengths(paths: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Of each network and way of counting: the mean length, and the lengths of 95%."""
    for (network, seed), rows in paths.groupby(["network", "seed"], sort=False):
        for counted in ("share_of_paths", "exact_share", "sampled_share"):
            below = rows[counted].cumsum().to_numpy()
            low, high = (int(np.searchsorted(below, part)) for part in (_TAIL, 1.0 - _TAIL))
            yield {
                "network": network,
                "seed": seed,
                "share": counted,
                "mean": float((rows["length"] * rows[counted]).sum()),
                "low": low,
                "high": high,
                "blocks": int(rows["length"].max()),
            }


def _single(edits: pd.DataFrame) -> "Figure":
    """Accuracy and robust accuracy after each edit of one block, by the block's place."""
    return _drawn(edits, SINGLE, "blocks", "edited block")


def _several(edits: pd.DataFrame) -> "Figure":
    """The same after several random edits, by how many."""
    return _drawn(edits, SEVERAL, "count", "blocks deleted, or pairs swapped")


def _drawn(edits: pd.DataFrame, kinds: Sequence[str], by: str, xlabel: str) -> "Figure":
    groups = list(dict.fromkeys(edits["network"]))
    labels = [
        f"{group}, {kind}"
        for group in groups
        for kind in kinds
        if ((edits["network"] == group) & (edits["edit"] == kind)).any()
    ]
    with figure_style():
        figure, axes = panels(2, height=2.5, legend=labels)
        for one, (column, label) in zip(axes, MEASURES.items(), strict=True):
            _series(one, edits, kinds, by, column)
            one.set(xlabel=xlabel, ylabel=label, ylim=(-0.02, 1.02))
        legend_below(figure, axes[0])
    return figure


def _series(axes: "Axes", edits: pd.DataFrame, kinds: Sequence[str], by: str, column: str) -> None:
    """A curve for each network and kind of edit; a level line for the network as it is."""
    every = list(dict.fromkeys(edits[edits["edit"].isin(kinds)][by]))
    places: Mapping[Any, float] = {one: i if by == "blocks" else one for i, one in enumerate(every)}
    for number, (group, own) in enumerate(edits.groupby("network", sort=False)):
        base = own[own["edit"] == "none"][column].mean()
        axes.axhline(base, color="0.6", lw=0.8, ls=("-", "--", ":", "-.")[number % 4])
        for kind in kinds:
            rows = own[own["edit"] == kind]
            if len(rows):
                found = over_seeds(rows, [by], column)
                series = number * len(kinds) + kinds.index(kind)
                x = [places[one] for one in found[by]]
                curve(axes, series, f"{group}, {kind}", x, found)
    if by == "blocks":
        every = sorted(every)
        shown = range(0, len(every), max(1, len(every) // 9))
        axes.set_xticks(
            list(shown), [every[one] for one in shown], rotation=40, ha="right", fontsize=6.5
        )


def _paths_figure(paths: pd.DataFrame) -> "Figure":
    """How many paths have each length, and how much of the gradient each length carries."""
    groups = list(dict.fromkeys(paths["network"]))
    series = {
        "share_of_paths": "of all paths (binomial)",
        "exact_share": "of the gradient, exact",
        "sampled_share": "of the gradient, sampled",
    }
    with figure_style():
        figure, axes = panels(len(groups) + 1, height=2.4, legend=[*series.values()])
        for one, group in zip(axes, groups, strict=False):
            own = paths[paths["network"] == group]
            for number, (column, label) in enumerate(series.items()):
                found = over_seeds(own, ["length"], column)
                curve(one, number, label, list(found["length"]), found)
            one.set(title=group, xlabel="residual branches on the path", ylabel="share")
        for number, group in enumerate(groups):
            found = over_seeds(paths[paths["network"] == group], ["length"], "sampled_norm")
            curve(axes[-1], number, group, list(found["length"]), found)
        axes[-1].set(
            title="of one random path",
            xlabel="residual branches on the path",
            ylabel="gradient norm",
            yscale="log",
        )
        if len(groups) > 1:
            axes[-1].legend()
        legend_below(figure, axes[0])
    return figure


def _notes(summary: pd.DataFrame, lengths: pd.DataFrame | None) -> Iterator[str]:
    for group, rows in summary.groupby("network", sort=False):
        means = rows.groupby(["kind", "count"], sort=False)[
            ["accuracy", "worst_accuracy", "robust_accuracy"]
        ].mean()
        shown = "; ".join(
            f"{kind}{f' ({count})' if count > 1 else ''} {row.accuracy:.2f} "
            f"(worst {row.worst_accuracy:.2f}, robust {row.robust_accuracy:.2f})"
            for (kind, count), row in zip(means.index, means.itertuples(), strict=True)
        )
        yield f"{group}: mean accuracy after each edit: {shown}"
    if lengths is not None:
        for (group, share), rows in lengths.groupby(["network", "share"], sort=False):
            yield (
                f"{group}, {share.replace('_', ' ')}: mean length {rows['mean'].mean():.1f} of "
                f"{rows['blocks'].max()} blocks, 95% within {rows['low'].min()} to "
                f"{rows['high'].max()}"
            )
