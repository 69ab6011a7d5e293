"""Randomised smoothing: a vote under noise, with a certificate in L2."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import nn

from ...bench.api.defense import Defense, Trained, Training
from ...bench.api.threat import Norm
from ..training.gaussian_noise import GaussianNoise
from ..training.loop.training_config import at_least, positive, require
from ..wrapper import Wrapper, trained_base, wrapped
from .smoothed_classifier import Smoothed


@dataclass(frozen=True, kw_only=True)
class RandomisedSmoothing(Wrapper):
    """Randomised smoothing (arXiv:1902.02918): the class given most often under Gaussian noise.

    sigma: the noise's spread on the [0, 1] scale: larger radii can be certified, at the price of
        accuracy. With n draws the largest radius is sigma Phi^-1(alpha^(1/n)).
    n0: draws that choose the class. n: draws that bound its probability; the paper has 100,000.
    alpha: the chance that a certificate is wrong.
    base: how the network is trained; by default on images with the same noise.

    Raises: BadParameter for a value that cannot be used.

    Around a network that is trained already:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> from quintain.defenses.certified.randomised_smoothing import RandomisedSmoothing
    >>> model, images, labels = linear_example()
    >>> smoothed = RandomisedSmoothing(sigma=0.05, n=200).wrap(model)
    >>> result = evaluate(smoothed, images, labels, "fgsm", norm="L2", epsilons=[0.05, 0.1])
    >>> result.certified_accuracy["robust_accuracy"].tolist()
    [0.9, 0.0]
    >>> result.curve["robust_accuracy"].tolist()
    [0.9, 0.8]
    """

    certifies: ClassVar[Norm] = "L2"

    sigma: float = 0.25
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    base: Defense = field(default_factory=GaussianNoise)

    def __post_init__(self) -> None:
        positive("sigma", self.sigma)
        at_least("n0", self.n0, 1)
        at_least("n", self.n, 2)
        require("alpha", self.alpha, 0.0 < self.alpha < 0.5, "above 0 and below 0.5")
        require("base", self.base, not self.rejects, "a defense that does not reject")
        if isinstance(self.base, GaussianNoise) and self.base.sigma is None:
            object.__setattr__(self, "base", replace(self.base, sigma=self.sigma))

    @property
    def stochastic(self) -> bool:
        """True: the noise is part of the network."""
        return True

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train the base network and smooth it. Raises: CellError when training diverges."""
        trained = trained_base(self.base, model, training)
        return replace(trained, model=self._smooth(trained.model))

    def wrap(self, model: nn.Module) -> nn.Module:
        """Smooth what the base makes of a network."""
        return self._smooth(wrapped(self.base, model))

    def _smooth(self, network: nn.Module) -> Smoothed:
        return Smoothed(network, self.sigma, self.n0, self.n, self.alpha)
