import pytest
import torch
from builders import random_images
from hypothesis import given
from hypothesis import strategies as st

from quintain.defenses.training.loop.augmentation import Augmentation


def moved(image, down, right):
    """Move one image (C, H, W) with plain loops."""
    out = torch.zeros_like(image)
    _, height, width = image.shape
    for i in range(height):
        for j in range(width):
            if 0 <= i - down < height and 0 <= j - right < width:
                out[:, i, j] = image[:, i - down, j - right]
    return out


@given(
    down=st.integers(-3, 3),
    right=st.integers(-3, 3),
    mirrored=st.booleans(),
    seed=st.integers(0, 9),
)
def test_moves_and_mirrors_as_plain_loops_do(down, right, mirrored, seed):
    x = random_images(2, 3, 5, 7, seed=seed)
    drawn = torch.tensor([[down, right, int(mirrored)], [0, 0, 0]])
    out = Augmentation(3, mirror=True)(x, drawn)
    assert torch.equal(out[0], moved(x[0].flip(2) if mirrored else x[0], down, right))
    assert torch.equal(out[1], x[1])


def test_draws_cover_every_move_and_half_are_mirrored():
    drawn = Augmentation(2, mirror=True).draw(4000, torch.Generator().manual_seed(0))
    for column in drawn[:, :2].unbind(1):
        counts = torch.bincount(column + 2, minlength=5)
        assert counts.min() > 700
        assert len(counts) == 5
    assert drawn[:, 2].float().mean() == pytest.approx(0.5, abs=0.03)
    assert set(drawn[:, 2].tolist()) == {0, 1}


def test_shape_and_range_are_kept():
    x = torch.rand(50, 3, 8, 10)
    augmentation = Augmentation.named("shift-flip", None, (3, 8, 10))
    out = augmentation(x, augmentation.draw(50, torch.Generator().manual_seed(0)))
    assert out.shape == x.shape
    assert out.min() >= 0.0
    assert out.max() <= 1.0
    assert not torch.equal(out, x)


def test_names():
    assert Augmentation.named("none", 4, (3, 32, 32)) == Augmentation(0, mirror=False)
    assert Augmentation.named("shift", None, (3, 32, 40)) == Augmentation(4, mirror=False)
    assert Augmentation.named("shift", 1, (3, 32, 32)) == Augmentation(1, mirror=False)
    assert Augmentation.named("shift-flip", None, (1, 16, 16)) == Augmentation(2, mirror=True)


def test_none_leaves_the_images_alone():
    x = torch.rand(4, 1, 5, 5)
    augmentation = Augmentation.named("none", None, (1, 5, 5))
    assert torch.equal(augmentation(x, augmentation.draw(4, torch.Generator())), x)
