"""GoogLeNet's auxiliary classifiers: early gradients, accuracy, and what they cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd
import torch

from ...api.epsilon import Epsilon
from ...api.shared.multiply_adds import multiply_adds
from ...api.study import Spec, StudyContext, StudyDefaults, StudyResult
from ..networks import STANDARD
from .comparison import (
    WEAK_PGD,
    Examples,
    checked_counts,
    effect_notes,
    effects,
    variants,
    variants_figure,
)
from .gradients import early_and_late, gradients_along_training, gradients_figure

VARIANTS = {"with auxiliary": True, "without auxiliary": False}
_BASELINE = "without auxiliary"


@dataclass(frozen=True)
class Auxiliary:
    """GoogLeNet with and without auxiliary classifiers: early gradients, accuracy, cost of a step.

    Source: Szegedy et al. 2014, arXiv:1409.4842, section 5.

    seeds, width: of the networks. batch_norm: between their layers, which the paper had not.
    training: how. gradient_epochs: after how many epochs the gradients are read; 0 is before
        training.
    attack, epsilon: of robust accuracy, in Linf.
    """

    seeds: int = 3
    width: float = 0.125
    batch_norm: bool = False
    training: Mapping[str, Any] = field(default_factory=lambda: dict(STANDARD))
    gradient_epochs: Sequence[int] = (0, 1, 4)
    attack: Spec = field(default_factory=lambda: dict(WEAK_PGD))
    epsilon: str | float = "8/255"

    defaults: ClassVar[StudyDefaults] = StudyDefaults(dataset="digits", defenses=(), n_examples=200)

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)
        checked_counts("auxiliary", 1, seeds=self.seeds)
        checked_counts("auxiliary", 0, gradient_epochs=min(self.gradient_epochs, default=0))

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each training, and for each layer at each moment."""
        specs = {name: self._spec(on) for name, on in VARIANTS.items()}
        table = pd.DataFrame(
            variants(context, specs, self.training, self.seeds, self.epsilon, self.attack)
        )
        shape = context.data("test").shape
        costs = {name: _training_cost(context, spec, shape) for name, spec in specs.items()}
        table["training_multiply_adds"] = table["variant"].map(costs)
        examples = Examples.of(context, "train", most=128)
        gradients = pd.DataFrame(
            row
            for name, spec in specs.items()
            for row in gradients_along_training(
                context, name, spec, self.training, self.gradient_epochs, examples
            )
        )
        main = gradients[~gradients["layer"].str.startswith("auxiliary")]
        found = effects(table, _BASELINE)
        return StudyResult(
            {"accuracy": table, "effects": found, "gradients": gradients},
            {"accuracy": variants_figure(table), "gradients": gradients_figure(main)},
            [*effect_notes(found, _BASELINE), *_cost_notes(table), *early_and_late(main)],
        )

    def _spec(self, auxiliary: bool) -> dict[str, Any]:
        return {
            "name": "googlenet",
            "width": self.width,
            "batch_norm": self.batch_norm,
            "auxiliary": auxiliary,
        }


def _training_cost(context: StudyContext, spec: Spec, shape: tuple[int, ...]) -> int:
    """Multiply-adds of a forward pass of one image in training, auxiliary classifiers included."""
    module = context.untrained(spec).train()
    x = torch.zeros(2, *shape, device=context.device)  # batch normalisation needs two
    return round(multiply_adds(module, x))


def _cost_notes(table: pd.DataFrame) -> list[str]:
    first = table.groupby("variant", sort=False).first()
    return [
        f"{row.Index}: {row.parameters:,} parameters, {row.training_multiply_adds / 1e6:.2f} "
        f"million multiply-adds of an image in training, {row.multiply_adds / 1e6:.2f} in use"
        for row in first.itertuples()
    ]
