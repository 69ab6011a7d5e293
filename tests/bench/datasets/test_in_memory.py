import numpy as np
import pytest
import torch

from quintain.bench.api.errors import BadData
from quintain.bench.datasets.in_memory import (
    SelectedImages,
    TensorImages,
    channel_statistics,
    fingerprint,
    in_memory,
    select,
)


def pixels(count=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 4, 5), generator=generator, dtype=torch.uint8)


def data(count=20):
    return in_memory(pixels(count), torch.arange(count) % 4, ("a", "b", "c", "d"))


def test_bytes_are_read_as_fractions_of_255_and_not_changed():
    images = TensorImages(pixels())
    found = images.read(torch.tensor([3, 0, 3]))
    expected = pixels()[[3, 0, 3]].numpy().astype(np.float32) / np.float32(255)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)
    assert torch.equal(images.data, pixels())


def test_what_is_read_is_a_copy():
    values = torch.rand(3, 1, 2, 2)
    images = TensorImages(values.clone())
    images.read(torch.arange(3)).zero_()
    assert torch.equal(images.read(torch.arange(3)), values)


def test_float64_is_read_as_float32():
    values = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    found = TensorImages(values).read(torch.arange(3))
    assert torch.equal(found, values.float())


def test_one_byte_changes_the_fingerprint():
    changed = pixels()
    changed[7, 1, 2, 3] ^= 1
    assert TensorImages(changed).fingerprint() != TensorImages(pixels()).fingerprint()
    assert TensorImages(pixels()).fingerprint() == TensorImages(pixels()).fingerprint()


def test_shape_and_type_are_part_of_the_fingerprint():
    same_bytes = [
        pixels(),
        pixels().reshape(20, 3, 5, 4),
        pixels().view(torch.int8),
    ]
    assert len({TensorImages(one).fingerprint() for one in same_bytes}) == 3


def test_memory_layout_is_not_part_of_the_fingerprint():
    strided = pixels().to(memory_format=torch.channels_last)
    assert TensorImages(strided).fingerprint() == TensorImages(pixels()).fingerprint()


def test_in_memory_describes_the_data():
    made = data()
    assert len(made) == 20
    assert made.shape == (3, 4, 5)
    assert made.n_classes == 4
    assert made.labels.dtype == torch.int64


def test_in_memory_takes_probabilities():
    labels = torch.full((20, 4), 0.25, dtype=torch.float64)
    assert in_memory(pixels(), labels, "abcd").labels.dtype == torch.float32


def test_in_memory_refuses_what_does_not_fit():
    with pytest.raises(BadData, match="label 4 at index 0"):
        in_memory(pixels(1), torch.tensor([4]), "abcd")
    with pytest.raises(BadData, match="divide by 255"):
        in_memory(pixels(1).float(), torch.tensor([0]), "abcd")
    with pytest.raises(BadData, match=r"not \(3, 4, 5\)"):
        in_memory(pixels(1)[0], torch.tensor([0]), "abcd")


def test_select_takes_images_and_labels_together():
    indices = torch.tensor([5, 2, 19])
    chosen = select(data(), indices)
    assert chosen.labels.tolist() == [1, 2, 3]
    assert torch.equal(
        chosen.images.read(torch.tensor([2, 0])), data().images.read(torch.tensor([19, 5]))
    )
    assert chosen.class_names == data().class_names
    assert chosen.shape == data().shape


def test_selecting_twice_is_selecting_once():
    twice = select(select(data(), torch.tensor([5, 2, 19])), torch.tensor([2, 0]))
    once = select(data(), torch.tensor([19, 5]))
    assert isinstance(twice.images, SelectedImages)
    assert isinstance(twice.images.base, TensorImages)
    assert fingerprint(twice) == fingerprint(once)


def test_select_reads_nothing():
    class Untouchable(TensorImages):
        def read(self, indices):
            raise AssertionError("read")

    made = data()
    object.__setattr__(made, "images", Untouchable(pixels()))
    chosen = select(made, torch.arange(3))
    assert len(chosen) == 3
    with pytest.raises(AssertionError, match="read"):
        chosen.images.read(torch.tensor([0]))


@pytest.mark.parametrize("wrong", [-1, 20])
def test_select_refuses_indices_out_of_range(wrong):
    with pytest.raises(BadData, match=f"index {wrong} is out of range: there are 20 images"):
        select(data(), torch.tensor([0, wrong]))


def test_select_refuses_masks():
    with pytest.raises(BadData, match=r"must be \(n,\) int64"):
        select(data(), torch.ones(20, dtype=torch.bool))


def test_fingerprint_covers_images_labels_names_and_order():
    base = data()
    other_pixels = pixels()
    other_pixels[0, 0, 0, 0] ^= 1
    variants = [
        base,
        in_memory(other_pixels, base.labels, base.class_names),
        in_memory(pixels(), base.labels.flip(0), base.class_names),
        in_memory(pixels(), base.labels, ("a", "b", "cd", "e")),
        in_memory(pixels(), base.labels, ("a", "b", "c", "de")),
        select(base, torch.arange(20).flip(0)),
    ]
    assert len({fingerprint(one) for one in variants}) == len(variants)
    assert fingerprint(data()) == fingerprint(base)


def test_channel_statistics_agree_with_numpy():
    images = pixels(1300)
    images[:, 1] = images[:, 1] // 4
    mean, std = channel_statistics(in_memory(images, torch.zeros(1300).long(), "a"))
    values = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, values.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, values.std(axis=(0, 2, 3)), rtol=1e-6)


def test_limited_statistics_see_every_part_of_a_sorted_dataset():
    ramp = torch.arange(100, dtype=torch.float32).div(100).reshape(-1, 1, 1, 1)
    mean, _ = channel_statistics(in_memory(ramp, torch.zeros(100).long(), "a"), limit=10)
    assert mean[0] == pytest.approx(0.45, abs=1e-6)


def test_a_constant_channel_can_be_divided_by():
    made = in_memory(torch.full((3, 1, 2, 2), 0.3), torch.zeros(3).long(), "a")
    mean, std = channel_statistics(made)
    assert mean[0] == pytest.approx(0.3)
    assert std == (1.0,)


def test_statistics_need_an_image():
    with pytest.raises(BadData, match="no images"):
        channel_statistics(select(data(), torch.tensor([], dtype=torch.int64)))
