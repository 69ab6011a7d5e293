"""The network that a defense wraps."""

from collections.abc import Callable

from torch import nn

from ..bench.protocols import Defense, Trained, Training


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
