"""JPEG in tensors beside Pillow's, which is libjpeg's."""

import io

import numpy as np
import pytest
import torch
from builders import random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from quintain.bench.api.errors import BadParameter
from quintain.defenses.transformations.jpeg import JPEG, Compressed
from quintain.defenses.transformations.jpeg_codec import cosine_transform


def smooth(channels, height, width, seed=0):
    """(1, C, H, W): an image with large shapes, edges and some noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 4, 5, generator=generator)
    large = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    large[..., : height // 2, : width // 3] += 0.3
    noisy = large + 0.02 * torch.randn(large.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round() / 255


def by_pillow(x, quality):
    pixels = (x[0] * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[..., 0] if x.shape[1] == 1 else pixels)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=2)
    opened = np.asarray(Image.open(file))
    return torch.from_numpy(opened.copy()).reshape(*x.shape[2:], -1).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize("size", [(32, 32), (16, 48), (21, 37), (9, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_is_that_of_libjpeg(channels, size, quality):
    x = torch.cat([smooth(channels, *size, seed) for seed in range(12)])
    theirs = torch.cat([by_pillow(one[None], quality) for one in x])
    off = (Compressed(quality)(x) - theirs).abs() * 255
    # libjpeg computes in integers: now and then a coefficient falls on the other side of a step
    assert off.mean() < 0.4
    assert (off <= 1).float().mean() > 0.95
    assert (x - theirs).abs().mean() * 255 > 3 * off.mean()


def test_the_transform_is_scipys():
    from scipy.fft import dctn

    block = torch.rand(8, 8, generator=torch.Generator().manual_seed(1))
    ours = cosine_transform() @ block @ cosine_transform().T
    assert np.allclose(ours.numpy(), dctn(block.numpy(), norm="ortho"), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20),
    st.integers(1, 100),
)  # fmt: skip
def test_any_image_stays_an_image(seed, channels, height, width, quality):
    x = random_images(2, channels, height, width, seed=seed)
    opened = Compressed(quality)(x)
    assert opened.shape == x.shape
    assert ((opened >= 0) & (opened <= 1)).all()
    assert torch.allclose(opened * 255, (opened * 255).round(), atol=1e-4)
    alone = torch.cat([Compressed(quality)(one[None]) for one in x])
    assert torch.allclose(opened, alone, atol=1.1 / 255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [5, 30, 75])
def test_the_surrogate_is_near_and_leads_along_what_is_kept(channels, quality):
    layer, x = Compressed(quality), smooth(channels, 20, 18)
    compressed, near = layer(x), layer.surrogate(x)
    assert (near - compressed).abs().mean() < (x - compressed).abs().mean()
    slopes = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    given = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((layer.surrogate(given) * slopes).sum(), given)
    assert 0 < gradient.norm() < 0.9 * slopes.norm()


def test_without_coarse_steps_the_surrogate_is_the_image():
    x = smooth(1, 20, 18)
    off = (Compressed(100).surrogate(x) - x).abs() * 255
    assert off.max() < 1
    colours = smooth(3, 16, 16)
    assert (Compressed(100).surrogate(colours) - Compressed(100)(colours)).abs().mean() * 255 < 1


def test_what_cannot_be_compressed_is_refused():
    with pytest.raises(BadParameter, match="1 or 3 channels, not 4"):
        Compressed(50)(torch.rand(1, 4, 8, 8))
    with pytest.raises(BadParameter, match="quality = 0 must be from 1 to 100"):
        JPEG(quality=0)


def test_its_tables_are_no_weights_and_move_with_the_network():
    wrapped = JPEG().wrap(torch.nn.Linear(2, 2))
    assert set(wrapped.state_dict()) == {"network.weight", "network.bias"}
    assert wrapped.to("meta").transformation.codec.colours.device.type == "meta"
