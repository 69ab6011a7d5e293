"""No defense: ordinary training."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ..bench.api.defense import Trained, Training
from .training.loop.loop import train
from .training.loop.objective import Batch, History, Objective, classification
from .training.loop.training_config import Recipe


@dataclass(frozen=True, kw_only=True)
class Undefended(Recipe):
    """Ordinary training by cross-entropy, to compare the defenses with.

    Labels may be classes (N,) or probabilities (N, K), such as another network's answers.

    >>> from quintain.bench.api.examples import training_example
    >>> from quintain.defenses.none import Undefended
    >>> model, training = training_example()
    >>> trained = Undefended(epochs=3, augmentation="none").fit(model, training)
    >>> [(row["epoch"], row["validation_accuracy"]) for row in trained.history]
    [(1, 1.0), (2, 1.0), (3, 1.0)]
    """

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train the model in place. Raises: CellError when training diverges."""
        return train(model, training, self, _Ordinary(self.label_smoothing))


@dataclass(frozen=True)
class _Ordinary:
    """Train on the images as they are."""

    label_smoothing: float
    warmup_epochs: int = 0

    def objective(self, model: nn.Module, batch: Batch) -> Objective:
        return classification(model, batch.x, batch.y, label_smoothing=self.label_smoothing)

    def adversarial(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return {}

    def alarm(self, history: History) -> str | None:
        return None
