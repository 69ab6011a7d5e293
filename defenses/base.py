"""The network that a defense wraps."""

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
