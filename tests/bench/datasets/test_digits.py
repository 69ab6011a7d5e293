import importlib.util

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from quintain.bench.api.errors import BadData, BadParameter
from quintain.bench.datasets.digits import Digits
from quintain.bench.datasets.in_memory import fingerprint


def raw(data):
    return data.images.read(torch.arange(len(data)))


def rows(images):
    return {image.numpy().tobytes() for image in images}


def test_the_splits_partition_the_scans():
    train, test = (Digits(size=8).load(split) for split in ("train", "test"))
    scans = torch.as_tensor(load_digits().images / 16, dtype=torch.float32).unsqueeze(1)
    assert len(train) + len(test) == len(scans) == 1797
    assert not rows(raw(train)) & rows(raw(test))
    assert rows(raw(train)) | rows(raw(test)) == rows(scans)


def test_each_scan_keeps_its_label():
    bundled = load_digits()
    by_scan = {
        (image / 16).astype(np.float32).tobytes(): label
        for image, label in zip(bundled.images, bundled.target, strict=True)
    }
    for split in ("train", "test"):
        data = Digits(size=8).load(split)
        expected = [by_scan[image.numpy().tobytes()] for image in raw(data)]
        assert data.labels.tolist() == expected


def test_the_scans_are_the_same_where_scikit_learn_keeps_its_file_elsewhere(monkeypatch):
    here = fingerprint(Digits().load("test"))
    look = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sklearn" else look(name)
    )
    assert fingerprint(Digits().load("test")) == here


def test_the_test_split_is_large_and_stratified():
    test = Digits().load("test")
    assert len(test) >= 400
    counts = np.bincount(load_digits().target)
    found = test.labels.bincount(minlength=10).numpy()
    assert (np.abs(found - counts * 0.25) < 1).all()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_is_kept(share):
    assert len(Digits(test_share=share).load("test")) == pytest.approx(1797 * share, abs=10)


def test_loading_is_deterministic():
    assert fingerprint(Digits().load("test")) == fingerprint(Digits().load("test"))
    assert fingerprint(Digits().load("test")) != fingerprint(Digits().load("train"))


def test_images_are_upsampled_bilinearly():
    small = raw(Digits(size=8).load("test")).numpy()
    large = raw(Digits(size=16).load("test")).numpy()
    assert large.shape == (len(small), 1, 16, 16)
    assert large.dtype == np.float32
    # Pixel centres of a doubled image lie a quarter of a pixel off: weights 3/4 and 1/4.
    padded = np.pad(small, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge").astype(np.float64)
    rows_up = np.empty((*padded.shape[:2], 16, 10))
    rows_up[:, :, 0::2] = 0.75 * padded[:, :, 1:-1] + 0.25 * padded[:, :, :-2]
    rows_up[:, :, 1::2] = 0.75 * padded[:, :, 1:-1] + 0.25 * padded[:, :, 2:]
    expected = np.empty(large.shape)
    expected[..., 0::2] = 0.75 * rows_up[..., 1:-1] + 0.25 * rows_up[..., :-2]
    expected[..., 1::2] = 0.75 * rows_up[..., 1:-1] + 0.25 * rows_up[..., 2:]
    np.testing.assert_array_equal(large, expected)


@pytest.mark.parametrize("size", [8, 16, 28])
def test_the_range_is_used_and_kept(size):
    data = Digits(size=size).load("train")
    assert data.shape == (1, size, size)
    assert data.class_names == tuple("0123456789")
    assert raw(data).min() == 0
    assert 0.99 < raw(data).max() <= 1


def test_bad_values_are_refused():
    with pytest.raises(BadParameter, match="size = 7 must be at least 8"):
        Digits(size=7)
    with pytest.raises(BadParameter, match=r"test_share = 1\.5"):
        Digits(test_share=1.5)
    with pytest.raises(BadData, match="no split 'val'"):
        Digits().load("val")
