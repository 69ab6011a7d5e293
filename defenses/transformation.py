"""What transformations of the input share: a layer before another defense's network."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, replace

from torch import nn

from ..bench.protocols import Defense, Trained, Training
from .base import trained_base, wrapped
from .none import Undefended


@dataclass(frozen=True, kw_only=True)
class InputTransformation(ABC):
    """A network that sees its input through a layer, which does not take part in the training.

    base: the defense that trains, or wraps, the network behind the layer.
    """

    base: Defense = Undefended()

    @abstractmethod
    def layer(self) -> nn.Module:
        """Make the layer: (B, C, H, W) in [0, 1] to the same. It declares its own nature."""

    @property
    def differentiable(self) -> bool:
        """Whether the layer, and what is behind it, has a useful gradient."""
        parts = self.layer(), self.base
        return all(getattr(one, "differentiable", True) for one in parts)

    @property
    def stochastic(self) -> bool:
        """Whether the layer, or what is behind it, uses random numbers."""
        return any(getattr(one, "stochastic", False) for one in (self.layer(), self.base))

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
        return nn.Sequential(OrderedDict(transformation=self.layer(), network=network))
