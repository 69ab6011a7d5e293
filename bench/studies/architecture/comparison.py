"""What the studies of architectures share: networks by seed, their accuracies, means over seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from ....models.cost import cost
from ...api.errors import BadParameter
from ...api.study import Spec, StudyContext
from ...report.figure_style import figure_style, legend_below, panels
from ...report.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BATCH = 128
MEASURES: Mapping[str, str] = {"accuracy": "accuracy", "robust_accuracy": "robust accuracy"}
WEAK_PGD: Mapping[str, Any] = {"name": "pgd", "steps": 10}


@dataclass(frozen=True)
class Examples:
    """x: (N, C, H, W) in [0, 1] and y: (N,), on the context's device."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(
        cls,
        context: StudyContext,
        split: Literal["train", "test"] = "test",
        most: int | None = None,
    ) -> "Examples":
        """Those of a split, or at most so many of them."""
        data = context.data(split, most)
        x = data.images.read(torch.arange(len(data)))
        return cls(x.to(context.device), data.labels.to(context.device))


@dataclass(frozen=True)
class Compared:
    """A network of a study. group: what it has in common with those of other seeds."""

    group: str
    seed: int
    module: nn.Module


@torch.no_grad()
def correct(module: nn.Module, examples: Examples) -> Tensor:
    """(N,) bool: which examples a network gets right."""
    parts = zip(examples.x.split(_BATCH), examples.y.split(_BATCH), strict=True)
    return torch.cat([module(x).argmax(dim=1) == y for x, y in parts])


def accuracies(
    context: StudyContext,
    module: nn.Module,
    examples: Examples,
    epsilon: str | float,
    attack: Spec,
) -> dict[str, float]:
    """Clean accuracy, and what is right both before and after the attack on this very network."""
    clean = correct(module, examples)
    attacked = context.attack(module, examples.x, examples.y, epsilon, attack)
    robust = clean & correct(module, Examples(attacked, examples.y))
    return {
        "accuracy": float(clean.double().mean()),
        "robust_accuracy": float(robust.double().mean()),
    }


def residual_and_plain(
    context: StudyContext, seeds: int, depth: int, width: float, training: Spec
) -> list[Compared]:
    """The networks that the user names, and `seeds` residual and plain ones, trained alike.

    Raises: BadParameter where this makes none.
    """
    found = [Compared(one.title, context.seed, one.module) for one in context.networks]
    specs = {
        block: {"name": "resnet", "depth": depth, "width": width, "block": block}
        for block in ("residual", "plain")
    }
    found += list(trained(context, specs, training, seeds))
    if not found:
        raise BadParameter("seeds = 0 without networks of your own: there is nothing to study")
    return found


def trained(
    context: StudyContext,
    specs: Mapping[str, Spec],
    training: Spec | Mapping[str, Spec],
    seeds: int,
) -> Iterator[Compared]:
    """Train each spec with several seeds. training: for all, or by the names of the specs."""
    by_name: Any = training if isinstance(training, Mapping) and "name" not in training else {}
    total = len(specs) * seeds
    for number, (group, spec) in enumerate(specs.items()):
        for seed in range(seeds):
            context.progress(number * seeds + seed, total, f"{group}, seed {seed}")
            module = context.train(spec, by_name.get(group, training), context.seed + seed)
            yield Compared(group, context.seed + seed, module)
    context.progress(total, total)


def variants(
    context: StudyContext,
    specs: Mapping[str, Spec],
    training: Spec | Mapping[str, Spec],
    seeds: int,
    epsilon: str | float,
    attack: Spec,
) -> Iterator[dict[str, Any]]:
    """Train variants of a network with several seeds: accuracies and cost, a row a training."""
    examples, shape = Examples.of(context), context.data("test").shape
    for one in trained(context, specs, training, seeds):
        found = cost(one.module, shape)
        yield {
            "variant": one.group,
            "seed": one.seed,
            **accuracies(context, one.module, examples, epsilon, attack),
            "parameters": found.parameters,
            "multiply_adds": found.multiply_adds,
        }


def effects(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """What each variant changes of the baseline's accuracies, seed by seed, with the mean of both.

    table: as of `variants`. Returns rows variant, accuracy, robust_accuracy and, of their
    differences from the baseline, the mean with Student's interval over the seeds.
    """
    base = table[table["variant"] == baseline].set_index("seed")
    rows = []
    for name, group in table.groupby("variant", sort=False):
        own = group.set_index("seed")
        row: dict[str, Any] = {"variant": name, "n": len(own)}
        for column in MEASURES:
            found = mean_interval((own[column] - base[column]).to_numpy())
            row |= {
                column: own[column].mean(),
                f"{column}_change": found.value,
                f"{column}_change_low": found.low,
                f"{column}_change_high": found.high,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def variants_figure(table: pd.DataFrame) -> "Figure":
    """Accuracy and robust accuracy of each variant: every seed, and their mean."""
    names = list(dict.fromkeys(table["variant"]))
    places = range(len(names))
    with figure_style():
        figure, axes = panels(2, height=0.9 + 0.22 * len(names), legend=["a training", "mean"])
        for one, (column, label) in zip(axes, MEASURES.items(), strict=True):
            seeds = [names.index(name) for name in table["variant"]]
            one.plot(table[column], seeds, "o", mfc="none", color="0.45", label="a training")
            means = over_seeds(table, ["variant"], column)
            one.plot(means["value"], places, "|", color="black", ms=11, mew=2.0, label="mean")
            one.set_yticks(places, names if one is axes[0] else [])
            one.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
        legend_below(figure, axes[0])
    return figure


def effect_notes(found: pd.DataFrame, baseline: str) -> Iterator[str]:
    """The baseline's accuracies, and what each variant changes of them."""
    for row in found.to_dict("records"):
        start = f"{row['variant']}: accuracy {row['accuracy']:.2f}"
        robust = f"robust accuracy {row['robust_accuracy']:.2f}"
        if row["variant"] == baseline:
            yield f"{start}, {robust} (mean of {row['n']} seeds)"
        else:
            yield f"{start} {_change(row, 'accuracy')}, {robust} {_change(row, 'robust_accuracy')}"


def _change(row: Mapping[str, Any], column: str) -> str:
    middle, low, high = (row[f"{column}_change{end}"] for end in ("", "_low", "_high"))
    return f"({middle:+.2f} [{low:+.2f}, {high:+.2f}])"


def over_seeds(table: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """Means of a column over seeds with Student's interval: `by`, value, low, high, n."""
    rows = []
    for key, group in table.groupby(list(by), sort=False, dropna=False):
        found = mean_interval(group[column].to_numpy())
        rows.append(
            dict(zip(by, key, strict=True))
            | {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
        )
    return pd.DataFrame(rows)


def checked_counts(study: str, least: int, **counts: int) -> None:
    """Raises: BadParameter for a count below the least."""
    for name, count in counts.items():
        if count < least:
            raise BadParameter(f"{study}: {name} = {count} must be at least {least}")
