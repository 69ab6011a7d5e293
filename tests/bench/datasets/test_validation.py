import numpy as np
import pytest
import torch

from quintain.bench.api.errors import BadData
from quintain.bench.datasets.validation import check_images, check_labels, check_split


def images(*values):
    """One 1x1x2 image for each pair."""
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 2)


def test_the_ends_of_the_range_are_allowed():
    check_images(images((0.0, 1.0)))
    check_images(images((0.0, 1.0)).half())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (images((0, 1), (0, 255)), r"range found is \[0, 255\]; divide by 255 \(image 1 holds 255"),
        (images((0, 1), (0, 1), (-2, 1)), r"\[-2, 1\]; hand them over before normalisation"),
        (images((0.5, 1.0000001)), r"image 0 holds 1\.00000012"),
        (images((0, 1), (float("nan"), 0)), "must be finite: image 1 holds nan"),
        (images((0, float("inf"))), "image 0 holds inf"),
        (torch.full((2, 1, 1, 1), 200, dtype=torch.uint8), "divide by 255"),
        (
            torch.ones(2, 1, 1, 1, dtype=torch.uint8),
            "must be floating point in .*, not torch.uint8",
        ),
        (torch.ones(2, 1, 1, 1, dtype=torch.bool), "must be floating point, not torch.bool"),
        (torch.rand(3, 4, 4), r"shape \(N, C, H, W\), not \(3, 4, 4\)"),
        (torch.rand(0, 1, 4, 4), "there are no images"),
        (np.zeros((1, 1, 2, 2)), "must be a torch.Tensor, not ndarray"),
    ],
)
def test_unusable_images_are_refused(wrong, message):
    with pytest.raises(BadData, match=message) as caught:
        check_images(wrong)
    assert "\n" not in str(caught.value)


def test_good_labels_pass():
    check_labels(torch.tensor([0, 9, 3]), 10, 3)
    check_labels(torch.tensor([0, 9, 3], dtype=torch.uint8), 10, 3)
    check_labels(torch.tensor([[0.25, 0.75], [1.0, 0.0]]), 2, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.tensor([1, 2, 12, 30]), r"label 12 at index 2 .*there are 10 classes \(0 to 9\)"),
        (torch.tensor([1, -1, 2, 3]), "label -1 at index 1 is out of range"),
        (torch.tensor([1, 10, 2, 3]), "they count from 1: subtract 1"),
        (torch.tensor([1, 2, 3]), "there are 3 labels for 4 images"),
        (torch.tensor([1.0, 2.0, 3.0, 4.0]), "must be integers, not torch.float32"),
        (torch.zeros(4, 1, 1), r"shape \(N,\) or \(N, K\), not \(4, 1, 1\)"),
        (torch.full((4, 9), 1 / 9), "labels have 9 columns, but there are 10 classes"),
        (torch.ones(4, 10, dtype=torch.int64), "must be floating point, not torch.int64"),
        ([0, 1, 2, 3], "must be a torch.Tensor, not list"),
    ],
)
def test_unusable_labels_are_refused(wrong, message):
    with pytest.raises(BadData, match=message) as caught:
        check_labels(wrong, 10, 4)
    assert "\n" not in str(caught.value)


def test_rows_that_are_not_distributions_are_refused():
    with pytest.raises(BadData, match=r"row at index 1 sums to 0\.9"):
        check_labels(torch.tensor([[0.5, 0.5], [0.5, 0.4]]), 2, 2)
    with pytest.raises(BadData, match=r"row at index 1 holds -0\.5"):
        check_labels(torch.tensor([[0.5, 0.5], [-0.5, 1.5]]), 2, 2)
    with pytest.raises(BadData, match="row at index 0 holds nan"):
        check_labels(torch.tensor([[float("nan"), 0.5], [0.5, 0.5]]), 2, 2)


def test_splits():
    check_split("train")
    check_split("test")
    with pytest.raises(BadData, match="no split 'val'"):
        check_split("val")
