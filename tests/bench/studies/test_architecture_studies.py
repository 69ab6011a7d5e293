import pandas as pd
import pytest
import torch
from torch import nn

from quintain.bench.studies.architecture.comparison import effects
from quintain.bench.studies.architecture.gradients import by_block
from quintain.bench.studies.architecture.ten_views import TenViews, crop_views, shift_views


class Constant(nn.Module):
    """Logits that are the sums of the image's left and right half."""

    def forward(self, x):
        half = x.shape[3] // 2
        left, right = x[..., :half].sum(dim=(1, 2, 3)), x[..., half:].sum(dim=(1, 2, 3))
        return torch.stack([left, right], dim=1)


def test_ten_views_are_the_crops_and_reflections_of_the_padded_image():
    x = torch.rand(1, 3, 6, 6)
    views = list(TenViews(Constant(), shift=2).views(x))
    assert len(views) == 10
    assert torch.equal(views[0], x)
    assert torch.equal(views[1], x.flip(3))
    wide = torch.nn.functional.pad(x, [2] * 4)
    corners = [wide[:, :, t : t + 6, s : s + 6] for t in (0, 4) for s in (0, 4)]
    for view, corner in zip(views[2::2], corners, strict=True):
        assert torch.equal(view, corner)


def test_ten_views_give_the_logarithm_of_the_mean_probability():
    x = torch.rand(3, 3, 6, 6)
    module = TenViews(Constant(), shift=1)
    mean = torch.stack([Constant()(one).softmax(dim=1) for one in module.views(x)]).mean(dim=0)
    torch.testing.assert_close(module(x).exp(), mean)
    torch.testing.assert_close(mean, torch.full_like(mean, 0.5))  # mirror images cancel the halves


def test_views_are_counted_as_they_can_be_listed():
    for shift in (0, 1, 4):
        places = range(-shift, shift + 1)
        listed = {(a, b, m) for a in places for b in places for m in (False, True)}
        assert shift_views(shift) == len(listed)
    assert crop_views(256, 224) == 2048  # section 4.1 of the 2012 paper


def test_effects_are_of_the_same_seeds():
    rows = [
        ("full", 0, 0.9, 0.5),
        ("full", 1, 0.7, 0.3),
        ("less", 1, 0.6, 0.4),
        ("less", 0, 0.8, 0.6),
    ]
    table = pd.DataFrame(rows, columns=["variant", "seed", "accuracy", "robust_accuracy"])
    found = effects(table, "full").set_index("variant")
    assert found.loc["less", "accuracy_change"] == pytest.approx(-0.1)
    assert found.loc["less", "accuracy_change_low"] == pytest.approx(
        -0.1
    )  # the same for both seeds
    assert found.loc["less", "robust_accuracy_change"] == pytest.approx(0.1)
    assert found.loc["full", "accuracy"] == pytest.approx(0.8)


def test_a_blocks_gradient_is_that_of_all_its_weights():
    rows = [
        ("a", 0, "stem.0", 3.0),
        ("a", 0, "stage1.0.conv1", 3.0),
        ("a", 0, "stage1.0.conv2", 4.0),
    ]
    table = pd.DataFrame(rows, columns=["network", "epochs", "layer", "norm"])
    found = by_block(table)
    assert found["block"].tolist() == ["stem.0", "stage1.0"]
    assert found["norm"].tolist() == [3.0, 5.0]
    assert found["place"].tolist() == [1, 2]
