"""Defenses that wrap the network of another one, their base."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..bench.api.defense import Defense, Trained, Training
from .none import Undefended


@dataclass(frozen=True, kw_only=True)
class Wrapper:
    """A defense around another's network, whose traits it shares.

    base: the defense that trains, or wraps, the network within.
    """

    base: Defense = Undefended()

    @property
    def differentiable(self) -> bool:
        """Whether all of the network has a useful gradient."""
        return bool(getattr(self.base, "differentiable", True))

    @property
    def stochastic(self) -> bool:
        """Whether anything in the network uses random numbers."""
        return bool(getattr(self.base, "stochastic", False))

    @property
    def rejects(self) -> bool:
        """Whether the network can reject its input."""
        return bool(getattr(self.base, "rejects", False))

    def check(self, training: Training) -> None:
        """Refuse what the base could not train with. Raises: BadParameter; BadData."""
        checked(self.base, training)


def checked(base: Defense, training: Training) -> None:
    """Have a defense check its hyper-parameters, if it does. Raises: BadParameter; BadData."""
    check: Callable[[Training], None] | None = getattr(base, "check", None)
    if check is not None:
        check(training)


def trained_base(base: Defense, model: nn.Module, training: Training) -> Trained:
    """Return what `base` makes of the model: of another like it, which defenses can share, or of
    the very one where there is no way to obtain another.

    Raises: CellError when training diverges.
    """
    if training.obtain is None:
        return base.fit(model, training)
    return training.obtain(base)


def wrapped(base: Defense, model: nn.Module) -> nn.Module:
    """Return the module that `base` would return of this model, untrained."""
    wrap: Callable[[nn.Module], nn.Module] | None = getattr(base, "wrap", None)
    return model if wrap is None else wrap(model)
