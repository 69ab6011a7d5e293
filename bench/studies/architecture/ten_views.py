"""AlexNet's prediction from ten views of an image."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class TenViews(nn.Module):
    """The mean probability over five places of the image, and their mirror images.

    The corner and centre crops of the image with `shift` black pixels around it: the image itself,
    and moved by `shift` pixels towards each corner. What comes out is the logarithm of the mean
    probability, which softmax turns back; an attack sees all ten passes.

    Source: Krizhevsky, Sutskever & Hinton 2012, section 4.1.

    >>> from quintain.bench.api.examples import linear_example
    >>> from quintain.bench.studies.architecture.ten_views import TenViews
    >>> model, images, _ = linear_example()
    >>> TenViews(model, shift=1)(images).exp().sum(dim=1).round(decimals=4).unique().tolist()
    [1.0]
    """

    def __init__(self, model: nn.Module, shift: int) -> None:
        super().__init__()
        self.model = model
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, K), logarithms of probabilities."""
        each = [self.model(view).log_softmax(dim=1) for view in self.views(x)]
        return torch.stack(each).logsumexp(dim=0) - math.log(len(each))

    def views(self, x: Tensor) -> Iterator[Tensor]:
        """The ten, each as (B, C, H, W)."""
        height, width = x.shape[2:]
        wide = F.pad(x, [self.shift] * 4)
        end = 2 * self.shift
        for top, left in ((self.shift, self.shift), (0, 0), (0, end), (end, 0), (end, end)):
            view = wide[:, :, top : top + height, left : left + width]
            yield view
            yield view.flip(3)


def crop_views(side: int, crop: int) -> int:
    """How many views crops and flips make of an image, as the paper counts: 2 (side - crop)^2.

    There is one place more along each side than that, which would make 2,178.

    >>> crop_views(256, 224)
    2048
    """
    return 2 * (side - crop) ** 2


def shift_views(shift: int) -> int:
    """How many views moves by up to `shift` pixels and flips make of an image: 2 (2 shift + 1)^2.

    >>> shift_views(4)
    162
    """
    return 2 * (2 * shift + 1) ** 2
