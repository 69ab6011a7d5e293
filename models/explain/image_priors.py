"""What natural images are like, as something to add to a loss: norms, total variation, patches.

All of them take u = (x - mean) / scale, (B, C, H, W): images without the data's mean colour, in
units of the data's root mean square; and return one value an image, (B,).

Sources: Mahendran & Vedaldi 2015, "Understanding deep image representations by inverting them",
arXiv:1412.0035, section 3; Zoran & Weiss 2011, "From learning models of natural image patches to
whole image restoration" (the expected patch log-likelihood, EPLL).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ...bench.api.errors import BadParameter

Prior = Callable[[Tensor], Tensor]
"""u (B, C, H, W) -> (B,), small for images that are likely."""

_EM_STEPS = 50
_FLAT = 1e-12  # squared slope that is added, so that its root has a gradient in flat places


@dataclass(frozen=True)
class PixelScale:
    """The units of an image prior. mean: (C,), of each channel. rms: of all that is left."""

    mean: Tensor
    rms: float

    @classmethod
    def of(cls, images: Tensor) -> "PixelScale":
        """Measure them on images (N, C, H, W).

        >>> PixelScale.of(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1))
        PixelScale(mean=tensor([0.5000]), rms=0.5)
        """
        mean = images.double().mean(dim=(0, 2, 3))
        centred = images.double() - mean[:, None, None]
        return cls(mean.to(images), math.sqrt(float(centred.square().mean())))

    def scaled(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> u."""
        return (x - self.mean[:, None, None].to(x)) / self.rms

    def image(self, u: Tensor) -> Tensor:
        """The other way round."""
        return u * self.rms + self.mean[:, None, None].to(u)


def alpha_norm(u: Tensor, alpha: float = 6.0) -> Tensor:
    """Mean of |u|^alpha: 6 bounds the range, as in the paper; 2 is the squared L2 norm.

    >>> alpha_norm(torch.full((1, 3, 2, 2), 2.0), 6.0)
    tensor([64.])
    """
    return u.abs().pow(alpha).flatten(1).mean(dim=1)


def total_variation(u: Tensor, beta: float = 2.0) -> Tensor:
    """Mean of |grad u|^beta, by differences to the right and downwards, zero at the border.

    beta: 2 makes images smooth; 1 leaves edges.

    >>> ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    >>> total_variation(ramp, 1.0), total_variation(2 * ramp, 2.0)
    (tensor([0.7500]), tensor([3.]))
    """
    right = F.pad(u[..., :, 1:] - u[..., :, :-1], (0, 1, 0, 0))
    down = F.pad(u[..., 1:, :] - u[..., :-1, :], (0, 0, 0, 1))
    squared = right.square() + down.square()
    slope = squared if beta == 2.0 else (squared + _FLAT).pow(beta / 2)
    return slope.flatten(1).mean(dim=1)


def weighted(*terms: tuple[float, Prior]) -> Prior:
    """The sum of priors, each times its weight.

    >>> from functools import partial
    >>> prior = weighted((0.009, alpha_norm), (0.05, partial(total_variation, beta=1.0)))
    >>> prior(torch.ones(2, 3, 4, 4))
    tensor([0.0090, 0.0090])
    """

    def prior(u: Tensor) -> Tensor:
        parts = [weight * term(u) for weight, term in terms]
        return torch.stack(parts).sum(dim=0) if parts else u.new_zeros(len(u))

    return prior


@dataclass(frozen=True)
class PatchMixture:
    """A Gaussian mixture over patches, as a prior that can be differentiated.

    side: of a patch, in pixels. From each patch the mean of each channel is subtracted first.
    log_weights: (K,). means: (K, D). factors: (K, D, D), of a Gaussian's precision P = F F^T; all
    of them float64. D = channels * side^2.
    """

    side: int
    log_weights: Tensor
    means: Tensor
    factors: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        """Mean of -log P over all patches, overlapping ones too, and their D values: (B,) nats."""
        patches = _centred(F.unfold(u, self.side), u.shape[1])
        return -self.log_likelihood(patches).mean(dim=1) / patches.shape[2]

    def log_likelihood(self, patches: Tensor) -> Tensor:
        """log P of centred patches (..., D): (...) nats."""
        size = patches.shape[-1]
        each = []
        for log_weight, mean, factor in zip(
            self.log_weights, self.means, self.factors, strict=True
        ):
            whitened = (patches - mean.to(patches)) @ factor.to(patches)
            determinant = factor.diagonal().log().sum()
            constant = log_weight + determinant - 0.5 * size * math.log(2 * math.pi)
            each.append(float(constant) - 0.5 * whitened.square().sum(dim=-1))
        return torch.stack(each).logsumexp(dim=0)


def fit_patch_mixture(
    u: Tensor, *, side: int = 5, components: int = 10, patches: int = 10_000, seed: int = 0
) -> PatchMixture:
    """Fit a mixture of Gaussians of full covariance to random patches, by scikit-learn.

    u: (N, C, H, W), scaled as everywhere here. patches: how many are drawn. It takes 15 seconds on
    one core with these values and three channels, and grows with components * patches * D^2.

    Raises: BadParameter for patches larger than the images, or fewer of them than components.

    >>> images = torch.rand(20, 1, 8, 8)
    >>> prior = fit_patch_mixture(images, side=2, components=2, patches=500)
    >>> prior(images).shape
    torch.Size([20])
    """
    if not 2 <= side <= min(u.shape[2:]):
        raise BadParameter(f"patches of {side}x{side} in images of {u.shape[2]}x{u.shape[3]}")
    if not 1 <= components <= patches:
        raise BadParameter(f"components = {components} for {patches} patches")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    drawn = _random_patches(u, side, patches, seed).double().cpu().numpy()
    mixture = GaussianMixture(
        components, tol=1e-2, reg_covar=1e-4, max_iter=_EM_STEPS, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough for a prior
        fitted = mixture.fit(drawn)
    found = (fitted.weights_, fitted.means_, fitted.precisions_cholesky_)
    weights, means, factors = (torch.from_numpy(one) for one in found)
    return PatchMixture(side, weights.log(), means, factors)


def _random_patches(u: Tensor, side: int, count: int, seed: int) -> Tensor:
    """(count, D): centred patches from random places of random images."""
    generator = torch.Generator().manual_seed(seed)
    rows, tops, lefts = (
        torch.randint(limit, (count,), generator=generator)
        for limit in (len(u), u.shape[2] - side + 1, u.shape[3] - side + 1)
    )
    across = torch.arange(side)
    places = (tops[:, None, None] + across[:, None], lefts[:, None, None] + across[None])
    patches = u.cpu()[rows[:, None, None], :, places[0], places[1]].permute(0, 3, 1, 2)
    return _centred(patches.flatten(1)[..., None], u.shape[1])[:, 0]


def _centred(columns: Tensor, channels: int) -> Tensor:
    """(B, D, n), as `F.unfold` gives them -> (B, n, D), without each channel's mean."""
    by_channel = columns.unflatten(1, (channels, -1))
    centred: Tensor = by_channel - by_channel.mean(dim=2, keepdim=True)
    return centred.flatten(1, 2).transpose(1, 2)
