"""What the studies of architectures share: networks by seed, their accuracies, means over seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from ...api.errors import BadParameter
from ...api.study import Spec, StudyContext
from ...report.statistics import mean_interval

_BATCH = 128
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
