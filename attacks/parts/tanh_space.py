"""Images as unbounded variables: x = (tanh(w) + 1) / 2.

Source: Carlini & Wagner 2017 (arXiv:1608.04644), section V-B.
"""

from torch import Tensor

_SHRINK = 0.999999  # keeps 0 and 1 at a finite place


def to_tanh_space(x: Tensor) -> Tensor:
    """Images in [0, 1] -> variables."""
    return ((2.0 * x - 1.0) * _SHRINK).atanh()


def to_images(w: Tensor) -> Tensor:
    """Variables -> images in [0, 1]."""
    return (0.5 * (w.tanh() + 1.0)).clamp(0.0, 1.0)


def pulled_back(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient by w, of one by the images x = to_images(w)."""
    return gradient * 2.0 * x * (1.0 - x)
