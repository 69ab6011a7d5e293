import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d

from quintain.attacks.gradients.translation import TranslationInvariant
from quintain.attacks.parts.losses import Margin
from quintain.bench.api.errors import BadParameter


class Given:
    """A source that gives one gradient, whatever it is asked."""

    access = "score"

    def __init__(self, gradient):
        self.gradient = gradient

    def __call__(self, problem, x, loss):
        return self.gradient


def smoothed(gradient, width):
    return TranslationInvariant(width, Given(gradient))(None, gradient, Margin())


@pytest.mark.parametrize("width", [1, 3, 7, 15])
def test_it_convolves_with_the_papers_kernel(width):
    gradient = torch.randn(4, 3, 10, 12)
    half = width // 2
    offsets = np.arange(-half, half + 1)
    sigma = max(half, 1) / np.sqrt(3)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    wanted = gradient.double().numpy()
    for axis in (2, 3):
        wanted = convolve1d(wanted, kernel / kernel.sum(), axis, mode="constant")
    assert np.allclose(smoothed(gradient, width), wanted, atol=1e-5)


@pytest.mark.parametrize(("side", "width"), [(299, 15), (224, 11), (64, 3), (32, 3), (8, 3)])
def test_by_default_the_kernel_grows_with_the_image(side, width):
    spike = torch.zeros(1, 1, side, side)
    spike[..., side // 2, side // 2] = 1.0
    touched = (smoothed(spike, None) > 0).sum().item()
    assert touched == width**2


def test_a_row_does_not_depend_on_its_neighbours():
    gradient = torch.randn(50, 1, 9, 9)
    assert torch.equal(smoothed(gradient, 5)[7:8], smoothed(gradient[7:8], 5))


@pytest.mark.parametrize("width", [0, -1, 4])
def test_a_kernel_without_a_middle_is_refused(width):
    with pytest.raises(BadParameter, match="width must be odd"):
        TranslationInvariant(width)


def test_the_loss_beside_it_is_the_other_sources():
    gradient = torch.randn(2, 1, 6, 6)
    source = Given(gradient)
    source.valued = lambda problem, x, loss: (gradient, torch.tensor([3.0, 4.0]))
    smooth, value = TranslationInvariant(3, source).valued(None, gradient, Margin())
    assert torch.equal(smooth, smoothed(gradient, 3))
    assert value.tolist() == [3.0, 4.0]


def test_access_is_the_other_sources():
    assert TranslationInvariant(3, Given(None)).access == "score"
    assert TranslationInvariant().access == "white-box"
