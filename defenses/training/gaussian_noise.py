"""Training on images with Gaussian noise."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...bench.api.defense import Trained, Training
from ...bench.api.errors import BadParameter
from .loop.loop import train
from .loop.objective import Batch, History, Objective, classification
from .loop.training_config import Recipe, positive


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Recipe):
    """Training on images with Gaussian noise, which is not clipped (arXiv:1902.02918, section 4).

    By itself a weak defense; it is the network that randomised smoothing needs.

    sigma: the noise's spread on the [0, 1] scale; smoothing lends its own where there is none.

    The weights of the epoch are kept that does best on held-out images with noise: what the history
    calls `robust` is that.

    Raises: BadParameter for a value that cannot be used.

    >>> from quintain.bench.api.examples import training_example
    >>> from quintain.defenses.training.gaussian_noise import GaussianNoise
    >>> model, training = training_example()
    >>> trained = GaussianNoise(sigma=0.05, epochs=10, augmentation="none").fit(model, training)
    >>> trained.history[-1]["robust_validation_accuracy"]
    0.95
    """

    sigma: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("sigma", self.sigma)

    def check(self, training: Training) -> None:
        """Refuse to train without a sigma. Raises: BadParameter."""
        self._spread()

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train the model in place.

        Raises: BadParameter without a sigma; CellError when training diverges.
        """
        return train(model, training, self, _Noisy(self._spread(), self.label_smoothing))

    def _spread(self) -> float:
        if self.sigma is None:
            raise BadParameter("gaussian-noise needs a sigma, such as sigma = 0.25")
        return self.sigma


@dataclass(frozen=True)
class _Noisy:
    """Train and validate with new noise on every image."""

    sigma: float
    label_smoothing: float
    warmup_epochs: int = 0

    def objective(self, model: nn.Module, batch: Batch) -> Objective:
        noisy = self._with_noise(batch)
        return classification(model, noisy, batch.y, label_smoothing=self.label_smoothing)

    def adversarial(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return {"robust": self._with_noise(batch)}

    def alarm(self, history: History) -> str | None:
        return None

    def _with_noise(self, batch: Batch) -> Tensor:
        noise = torch.randn(batch.x.shape, generator=batch.generator, device=batch.x.device)
        return batch.x + self.sigma * noise
