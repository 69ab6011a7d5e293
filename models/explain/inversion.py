"""Feature inversion: which images give what a layer gave, and so what the layer keeps.

Source: Mahendran & Vedaldi 2015, "Understanding deep image representations by inverting them",
arXiv:1412.0035.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...bench.api.errors import BadData, BadParameter
from ...bench.api.rng import Draws
from .image_priors import PixelScale, Prior

Progress = Callable[[int], None]
"""Called after each iteration with its number, from 1."""


@dataclass(frozen=True)
class Inversion:
    """What came of it, for R restarts and B images.

    images: (R, B, C, H, W), as they came out: clip them to [0, 1] to show or compare them.
    feature_error: (R, B), ||phi(x) - phi(x0)||^2 / ||phi(x0)||^2. loss: (R, B), with the prior.
    """

    images: Tensor
    feature_error: Tensor
    loss: Tensor

    @property
    def best(self) -> Tensor:
        """(B, C, H, W): of each image the restart of the smallest loss."""
        return self.images[self._best, torch.arange(self.images.shape[1])]

    @property
    def best_error(self) -> Tensor:
        """(B,): the feature error of `best`."""
        return self.feature_error[self._best, torch.arange(self.images.shape[1])]

    @property
    def spread(self) -> Tensor:
        """(B,): root mean square over pixels of the deviation between restarts, in units of x.

        What the features leave open, as far as the prior does; zero with one restart.
        """
        return self.images.var(dim=0, correction=0).flatten(1).mean(dim=1).sqrt()

    @property
    def _best(self) -> Tensor:
        return self.loss.argmin(dim=0)


def invert(
    represent: Callable[[Tensor], Tensor],
    features: Tensor,
    shape: tuple[int, int, int],
    scale: PixelScale,
    prior: Prior | None = None,
    *,
    iterations: int = 400,
    learning_rate: float = 0.05,
    restarts: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Inversion:
    """Look for images of given features: minimise the feature error plus a prior.

    loss(x) = ||phi(x) - phi0||^2 / ||phi0||^2 + prior((x - mean) / rms), for each image by itself.
    In these units the paper's prior is 0.009 times `alpha_norm` of 6, and `total_variation` with a
    weight that grows tenfold from early to middle to late layers. On a ResNet-20 for CIFAR-10
    `total_variation` alone is nearer to the image: weights of 0.01, 0.05 and 0.2 after the first
    convolution, stage and second stage.

    represent: phi, such as `layers.reader(model, "stage2")`: (n, C, H, W) -> (n, ...). features:
    phi0, (B, ...). shape: (C, H, W) of the images. Nothing here sees the images themselves.
    scale: the units, from training images. restarts: from so many starts of white noise, a fifth of
    the data's root mean square around its mean.

    Deviations from the paper: Adam, whose rate goes from learning_rate to zero by half a
    cosine, instead of momentum; no jitter. Pixels are not clipped on the way.

    Raises: BadParameter for a number that cannot be used; BadData for features that are all zero
    for some image, or of another shape than phi gives.

    >>> scale = PixelScale(torch.tensor([0.5]), 0.25)
    >>> x0 = torch.tensor([[[[0.2, 0.9], [0.4, 0.6]]]])
    >>> found = invert(lambda x: 2.0 * x, 2.0 * x0, (1, 2, 2), scale)
    >>> torch.allclose(found.best, x0, atol=1e-4)
    True
    """
    if min(iterations, restarts) < 1 or not 0.0 < learning_rate < math.inf:
        raise BadParameter(
            f"iterations = {iterations}, restarts = {restarts} and learning_rate = {learning_rate} "
            "must be positive"
        )
    count = len(features)
    target = features.detach().flatten(1).repeat(restarts, 1)
    size = target.square().sum(dim=1)
    if not bool((size > 0).all()):
        raise BadData("the features of an image are all zero: nothing can be told from them")
    start = _noise(count, restarts, shape, seed)
    x = scale.image(_START * start.to(target)).requires_grad_()

    def feature_error() -> Tensor:
        given = represent(x).flatten(1)
        if given.shape != target.shape:
            raise BadData(
                f"features of {target.shape[1]} values, where the layer gives {given.shape[1]}"
            )
        return (given - target).square().sum(dim=1) / size

    def loss(error: Tensor) -> Tensor:
        return error if prior is None else error + prior(scale.scaled(x))

    optimiser = torch.optim.Adam([x], lr=learning_rate)
    for iteration in range(iterations):
        optimiser.param_groups[0]["lr"] = _cosine(learning_rate, iteration, iterations)
        with torch.enable_grad():
            (x.grad,) = torch.autograd.grad(loss(feature_error()).sum(), x)
        optimiser.step()
        if progress is not None:
            progress(iteration + 1)
    with torch.no_grad():
        error = feature_error()
        found = (x.detach(), error, loss(error))
    return Inversion(*(one.unflatten(0, (restarts, count)) for one in found))


_START = 0.2


def _noise(count: int, restarts: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """(restarts * count, *shape): standard normal, and an image's own whatever the batch."""
    restart, row = (
        one.flatten()
        for one in torch.meshgrid(torch.arange(restarts), torch.arange(count), indexing="ij")
    )
    return Draws(seed, row, restart, torch.zeros_like(row)).normal(shape, "inversion")


def _cosine(first: float, iteration: int, iterations: int) -> float:
    """Half a cosine from `first` to zero."""
    return first * 0.5 * (1.0 + math.cos(math.pi * iteration / iterations))
