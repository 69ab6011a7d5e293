"""Comparisons of maps and images against cases worked out by hand, and their controls."""

import sys

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadData, BadParameter
from quintain.models.explain.controls import matched_noise, randomised_cascade
from quintain.models.explain.map_comparison import compare_maps, localisation
from quintain.models.explain.similarity import psnr, ssim
from quintain.models.resnet import resnet


@pytest.fixture
def maps():
    return torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_map_is_like_itself_and_like_its_scaled_self_in_order(maps):
    same, scaled = compare_maps(maps, maps), compare_maps(0.25 * maps, maps)
    for found in (same, scaled):
        torch.testing.assert_close(found.rank_correlation, torch.ones(5).double())
        torch.testing.assert_close(found.shift, torch.zeros(5).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(same.ssim, torch.ones(5).double())
    torch.testing.assert_close(scaled.mass_left, torch.full((5,), 0.25).double())
    assert (scaled.ssim < 0.9).all()


def test_the_reversed_order_has_correlation_minus_one_and_a_moved_map_its_shift(maps):
    torch.testing.assert_close(
        compare_maps(1.0 - maps, maps).rank_correlation, -torch.ones(5).double()
    )
    inside = torch.zeros(1, 20, 20)
    inside[0, 5:9, 4:7] = torch.rand(4, 3)
    moved = compare_maps(inside.roll((3, 4), dims=(1, 2)), inside)
    torch.testing.assert_close(moved.shift, torch.tensor([5.0]).double())
    torch.testing.assert_close(moved.mass_left, torch.ones(1).double())


def test_blank_and_even_maps_are_counted_and_nothing_is_nan(maps):
    other = maps.clone()
    other[1], maps[3], other[4] = 0.0, 0.0, 0.5
    found = compare_maps(other, maps)
    assert found.rows.tolist() == [0, 2]
    assert found.blank.tolist() == [1, 3, 4]
    for values in (found.rank_correlation, found.ssim, found.shift, found.mass_left):
        assert len(values) == 2
        assert values.isfinite().all()


@pytest.mark.parametrize("side", [4, 8, 32])
def test_ssim_and_psnr_are_scikit_images(side):
    one, other = torch.rand(2, 3, 3, side, side, generator=torch.Generator().manual_seed(side))
    window = {4: 3}.get(side, 7)
    for index in range(3):
        pair = [images[index].double().numpy() for images in (one, other)]
        expected = structural_similarity(
            *(image.transpose(1, 2, 0) for image in pair),
            win_size=window, data_range=1.0, channel_axis=2,
        )  # fmt: skip
        assert ssim(one, other)[index] == pytest.approx(expected, abs=1e-9)
        expected = peak_signal_noise_ratio(pair[1], pair[0], data_range=1.0)
        assert psnr(one, other)[index] == pytest.approx(expected, abs=1e-9)
    assert psnr(one, one).isinf().all()


def test_without_scikit_image_the_extra_is_named(maps, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(BadParameter, match=r"quintain\[insight\]"):
        ssim(maps, maps)


def test_what_cannot_be_compared_is_refused(maps):
    with pytest.raises(BadData, match="compared with"):
        compare_maps(maps, maps[:3])
    with pytest.raises(BadData, match="not negative"):
        compare_maps(maps - 1.0, maps)
    with pytest.raises(BadData, match="3x3 pixels or more"):
        ssim(maps[:, :2], maps[:, :2])
    with pytest.raises(BadData, match="masks"):
        localisation(maps, maps)


def test_pointing_game_and_energy_of_a_map_that_knows_nothing_are_chance():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(4000, 10, 10, generator=generator)
    masks = torch.zeros(4000, 10, 10, dtype=torch.bool)
    masks[:, :5, :6] = True
    found = localisation(maps, masks)
    assert found.hit.double().mean() == pytest.approx(0.3, abs=0.03)
    assert found.energy.mean() == pytest.approx(0.3, abs=0.005)
    torch.testing.assert_close(found.chance, torch.full((4000,), 0.3).double())
    perfect = localisation(masks.float(), masks)
    assert perfect.hit.all()
    assert (perfect.energy == 1.0).all()
    blank = localisation(torch.zeros(3, 10, 10), masks[:3])
    assert not blank.hit.any()
    assert len(blank.rows) == len(blank.energy) == 0


def test_matched_noise_keeps_every_size_and_breaks_all_structure():
    delta = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).cumsum(dim=3)
    noise = matched_noise(delta, seed=1)
    for before, after in zip(delta, noise, strict=True):
        # pixels stay together: the same set of triples of absolute values
        triples = [np.sort(one.abs().flatten(1).T.numpy(), axis=0) for one in (before, after)]
        assert np.array_equal(*triples)
        norms = torch.stack([before.abs().flatten(1).T, after.abs().flatten(1).T]).sum(dim=2)
        assert torch.equal(norms[0].sort().values, norms[1].sort().values)
    cosine = torch.cosine_similarity(noise.flatten(1), delta.flatten(1))
    assert cosine.abs().max() < 0.15
    neighbours = [(d[..., 1:] * d[..., :-1]).mean() / (d * d).mean() for d in (delta, noise)]
    assert neighbours[0] > 0.9
    assert abs(neighbours[1]) < 0.15
    assert torch.equal(noise, matched_noise(delta, seed=1))
    assert not torch.equal(noise, matched_noise(delta, seed=2))


def test_the_cascade_goes_from_the_top_down_and_leaves_the_network_alone():
    torch.manual_seed(0)
    model = resnet(InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3), depth=8, width=0.25).eval()
    x = torch.rand(2, 3, 16, 16)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    changed, names = set(), []
    for name, network in randomised_cascade(model, x, seed=3):
        names.append(name)
        now = network.state_dict()
        differ = {
            key.rpartition(".")[0] for key in before if not torch.equal(before[key], now[key])
        }
        assert changed <= differ <= {*names}
        changed = differ
        assert network(x).isfinite().all()
    assert names[0] == "classifier"
    assert names[-1] == "stem.0"
    assert {name for name in names if "residual" in name} <= changed | {
        name for name in names if isinstance(model.get_submodule(name), nn.BatchNorm2d)
    }
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    spreads = [float(one.stage3[0].residual[0].weight.detach().std()) for one in (model, network)]
    assert spreads[1] == pytest.approx(spreads[0], rel=0.1)
