"""How like two images, or two maps, are: PSNR and SSIM.

Source of SSIM: Wang et al. 2004, "Image quality assessment: from error visibility to structural
similarity", as scikit-image computes it.
"""

import torch
from torch import Tensor

from ...bench.api.errors import BadData, BadParameter

_WINDOW = 7  # pixels: scikit-image's own, where the image has as many


def psnr(x: Tensor, reference: Tensor, *, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in decibels, 10 log10(peak^2 / mean squared error): (B,).

    x, reference: (B, ...), compared as they are: clip to the box first where that is meant. The
    same image has an infinite one.

    >>> psnr(torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), 0.5)).round(decimals=3)
    tensor([20.], dtype=torch.float64)
    """
    _same_shape(x, reference)
    error = (x.double() - reference.double()).square().flatten(1).mean(dim=1)
    return 10.0 * torch.log10(peak**2 / error)


def ssim(x: Tensor, reference: Tensor, *, peak: float | Tensor = 1.0) -> Tensor:
    """Structural similarity, 1 for the same image: (B,) float64.

    x, reference: (B, C, H, W), or maps (B, H, W). peak: the range of the values, one for all or
    (B,). Windows have 7x7 pixels, or the largest odd number that smaller images have.

    Raises: BadParameter without scikit-image (extra `insight`); BadData for images of two shapes,
    or below 3x3 pixels.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise BadParameter("SSIM needs scikit-image: pip install quintain[insight]") from error
    _same_shape(x, reference)
    side = min(x.shape[-2:])
    if side < 3:
        raise BadData(f"SSIM needs images of 3x3 pixels or more; a side here has {side}")
    peaks = torch.as_tensor(peak, dtype=torch.float64).expand(len(x))
    pairs = zip(x.double().cpu(), reference.double().cpu(), peaks, strict=True)
    found = [
        structural_similarity(
            one.numpy(),
            other.numpy(),
            win_size=min(_WINDOW, side - (side + 1) % 2),
            data_range=float(span),
            channel_axis=0 if one.dim() == 3 else None,
        )
        for one, other, span in pairs
    ]
    return torch.tensor(found, dtype=torch.float64)


def _same_shape(x: Tensor, reference: Tensor) -> None:
    if x.shape != reference.shape:
        raise BadData(f"{tuple(x.shape)} cannot be compared with {tuple(reference.shape)}")
