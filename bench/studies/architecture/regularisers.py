"""AlexNet's regularisers, switched off one at a time, with what each does to robust accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd

from ...api.epsilon import Epsilon
from ...api.study import Spec, StudyContext, StudyDefaults, StudyResult
from .comparison import (
    WEAK_PGD,
    Examples,
    accuracies,
    checked_counts,
    effect_notes,
    effects,
    variants,
    variants_figure,
)
from .ten_views import TenViews, crop_views, shift_views

FULL = "all of them"
TEN = "and ten views"
_SHIFT = 4  # pixels, of 32
# variant -> what is changed of the network, and of its training
_WITHOUT: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    FULL: ({}, {}),
    "no crops": ({}, {"shift": 0}),
    "no reflections": ({}, {"augmentation": "shift"}),
    "no PCA colour": ({}, {"colour": 0.0}),
    "no dropout": ({"dropout": 0.0}, {}),
    "no weight decay": ({}, {"weight_decay": 0.0}),
    "constant rate": ({}, {"schedule": "constant"}),
    "pooling apart": ({"pool": 2}, {}),
    "no LRN": ({"local_response": False}, {}),
}


def _recipe() -> dict[str, Any]:
    return {
        "name": "none",
        "epochs": 20,
        "batch_size": 64,
        "learning_rate": 0.02,
        "schedule": "plateau",
        "augmentation": "shift-flip",
        "shift": _SHIFT,
        "colour": 0.1,
        "weight_decay": 5e-4,
        "gradient_clip": 1.0,
    }


@dataclass(frozen=True)
class Regularisers:
    """AlexNet's regularisers off one at a time, and the ten-view prediction.

    Crops, reflections and principal components' colours; dropout; weight decay; the rate divided
    where the validation loss stays; overlapping pooling; local response normalisation. The
    prediction from ten views is tried on the networks that have all of them.

    Source: Krizhevsky, Sutskever & Hinton 2012, sections 3.3, 3.4, 4 and 5.

    seeds, width: of the networks. training: of the network with everything.
    attack, epsilon: of robust accuracy, in Linf.
    """

    seeds: int = 3
    width: float = 0.125
    training: Mapping[str, Any] = field(default_factory=_recipe)
    attack: Spec = field(default_factory=lambda: dict(WEAK_PGD))
    epsilon: str | float = "2/255"

    defaults: ClassVar[StudyDefaults] = StudyDefaults(defenses=(), n_examples=200)

    def __post_init__(self) -> None:
        Epsilon.parse(self.epsilon)
        checked_counts("regularisers", 1, seeds=self.seeds)

    def run(self, context: StudyContext) -> StudyResult:
        """A row for each training, and for the same networks with ten views."""
        base = {"name": "alexnet", "width": self.width}
        specs = {name: {**base, **network} for name, (network, _) in _WITHOUT.items()}
        recipes = {name: {**self.training, **change} for name, (_, change) in _WITHOUT.items()}
        rows = list(variants(context, specs, recipes, self.seeds, self.epsilon, self.attack))
        rows += self._ten_views(context, specs[FULL], recipes[FULL])
        table = pd.DataFrame(rows)
        found = effects(table, FULL)
        shift = self._shift(context)
        views = pd.DataFrame(
            [
                {
                    "augmentation": "crops of 224 from 256, flips",
                    "views": crop_views(256, 224),
                },
                {"augmentation": f"moves by {shift}, flips", "views": shift_views(shift)},
            ]
        )
        notes = [
            f"{row.augmentation}: {row.views:,} views of an image" for row in views.itertuples()
        ]
        return StudyResult(
            {"accuracy": table, "effects": found, "views": views},
            {"accuracy": variants_figure(table)},
            [*notes, *effect_notes(found, FULL)],
        )

    def _shift(self, context: StudyContext) -> int:
        """As the training has it: an eighth of the shorter side where it does not say."""
        given = self.training.get("shift")
        return min(context.data("test").shape[1:]) // 8 if given is None else int(given)

    def _ten_views(
        self, context: StudyContext, spec: Spec, training: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        examples, shift, rows = Examples.of(context), self._shift(context), []
        for seed in range(context.seed, context.seed + self.seeds):
            module = TenViews(context.train(spec, training, seed), shift).eval()
            found = accuracies(context, module, examples, self.epsilon, self.attack)
            rows.append({"variant": TEN, "seed": seed, **found})
        return rows
