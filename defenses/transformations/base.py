"""What transformations of the input share: a layer before another defense's network."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, replace

from torch import nn

from ...bench.api.defense import Trained, Training
from ..wrapper import Wrapper, trained_base, wrapped


@dataclass(frozen=True, kw_only=True)
class InputTransformation(Wrapper, ABC):
    """A network that sees its input through a layer, which does not take part in the training."""

    @abstractmethod
    def layer(self) -> nn.Module:
        """Make the layer: (B, C, H, W) in [0, 1] to the same. It declares its own traits."""

    @property
    def differentiable(self) -> bool:
        """Whether the layer, and what is behind it, has a useful gradient."""
        return super().differentiable and bool(getattr(self.layer(), "differentiable", True))

    @property
    def stochastic(self) -> bool:
        """Whether the layer, or what is behind it, uses random numbers."""
        return super().stochastic or bool(getattr(self.layer(), "stochastic", False))

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Obtain the base's network and put the layer before it.

        Raises: CellError when training diverges.
        """
        trained = trained_base(self.base, model, training)
        return replace(trained, model=self._before(trained.model).to(training.device))

    def wrap(self, model: nn.Module) -> nn.Module:
        """Put the layer before what the base makes of a model."""
        return self._before(wrapped(self.base, model))

    def _before(self, network: nn.Module) -> nn.Module:
        return Before(OrderedDict(transformation=self.layer(), network=network))


class Before(nn.Sequential):
    """A layer before a network, which rejects what the network rejects."""

    network: nn.Module

    @property
    def rejects(self) -> bool:
        """Whether the last logit is a rejection."""
        return bool(getattr(self.network, "rejects", False))

    @property
    def false_positive_rate(self) -> float | None:
        """The share of clean images that the network is set to reject, if it rejects."""
        return getattr(self.network, "false_positive_rate", None)
