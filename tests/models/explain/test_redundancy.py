"""Correlation by distance, of fields whose correlation is known."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from quintain.bench.api.errors import BadData, BadParameter
from quintain.models.explain.redundancy import (
    correlation_by_distance,
    layer_correlations,
    white_noise,
)


@pytest.fixture(scope="module")
def noise():
    return torch.randn(300, 2, 16, 16, generator=torch.Generator().manual_seed(0))


def box(side):
    """A convolution that sums squares of so many pixels, each channel by itself."""
    layer = nn.Conv2d(2, 2, side, groups=2, bias=False)
    nn.init.ones_(layer.weight)
    return layer.requires_grad_(False)


def test_of_white_noise_it_is_zero_and_of_its_sums_what_they_share(noise):
    torch.testing.assert_close(
        correlation_by_distance(noise, [0, 1, 5]),
        torch.tensor([1.0, 0.0, 0.0]).double(), atol=0.01, rtol=0.0,
    )  # fmt: skip
    shared = torch.tensor([3, 2, 1, 0, 0]).double() / 3
    found = correlation_by_distance(box(3)(noise), range(5))
    torch.testing.assert_close(found, shared, atol=0.01, rtol=0.0)


def test_a_layer_adds_what_its_overlap_makes(noise):
    model = nn.Sequential(box(2), nn.MaxPool2d(2), nn.Flatten())
    found = layer_correlations(model, noise, ["", "0", "1"], [0, 1, 2, 10])
    assert [len(found[name]) for name in ("", "0", "1")] == [4, 4, 3]
    expected = torch.tensor([1.0, 0.5, 0.0, 0.0]).double()
    torch.testing.assert_close(found["0"], expected, atol=0.01, rtol=0.0)
    assert found[""][1].abs() < 0.01


def test_it_is_numpys_pearson_correlation_in_each_direction():
    maps = torch.rand(3, 1, 5, 7, generator=torch.Generator().manual_seed(0)).double()
    pairs = [
        (maps[..., 2:], maps[..., :-2]),
        (maps[..., 2:, :], maps[..., :-2, :]),
    ]
    expected = torch.stack(
        [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in pairs]
    ).mean()
    torch.testing.assert_close(correlation_by_distance(maps, [2])[0], expected)


def test_scale_offset_and_dead_channels_change_nothing(noise):
    smooth = F.avg_pool2d(noise, 3, stride=1)
    expected = correlation_by_distance(smooth, [1, 2])
    torch.testing.assert_close(correlation_by_distance(5 * smooth - 3, [1, 2]), expected)
    dead = torch.cat([smooth, torch.full_like(smooth[:, :1], 2.0)], dim=1)
    torch.testing.assert_close(correlation_by_distance(dead, [1, 2]), expected)


def test_white_noise_has_the_images_moments_and_nothing_else():
    images = torch.rand(400, 3, 8, 8).cumsum(3) / 8 * torch.tensor([1.0, 0.5, 0.1]).reshape(3, 1, 1)
    noise = white_noise(images)
    for statistic in (torch.mean, torch.std):
        expected, found = (statistic(one.transpose(0, 1).flatten(1), 1) for one in (images, noise))
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.002)
    assert correlation_by_distance(images, [1])[0] > 0.8
    assert correlation_by_distance(noise, [1])[0].abs() < 0.02
    assert torch.equal(white_noise(images)[:5], white_noise(images, seed=0)[:5])
    assert not torch.equal(noise, white_noise(images, seed=1))


def test_bad_input_is_refused(noise):
    for maps, distances in ((noise, [16]), (noise, [-1]), (noise, []), (noise[0], [1])):
        with pytest.raises(BadData, match="distances"):
            correlation_by_distance(maps, distances)
    with pytest.raises(BadData, match="varies"):
        correlation_by_distance(torch.ones(2, 1, 4, 4), [1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(512, 2))
    with pytest.raises(BadData, match="not maps"):
        layer_correlations(model, noise, ["1"], [1])
    with pytest.raises(BadParameter, match="no layer '7'"):
        layer_correlations(model, noise, ["7"], [1])
