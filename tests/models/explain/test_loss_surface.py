"""Slices against losses computed by hand, and what filter normalisation is for."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadData, BadParameter
from quintain.models.explain.loss_surface import (
    doubling_width,
    filter_normalised_direction,
    input_slice,
    loss_slice,
)
from quintain.models.resnet import resnet

INPUTS = InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3)
STEPS = torch.linspace(-0.5, 0.5, 5)


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = resnet(INPUTS, depth=8, width=0.5).double().eval()
    nn.init.normal_(model.classifier.weight)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return model


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(6, 3, 16, 16, generator=generator).double(), torch.arange(6) % 5


def moved(model, *steps):
    """The network with its weights moved, by hand: (step, direction) each."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in changed.named_parameters():
            for step, direction in steps:
                weight += step * direction[name]
    return changed


def test_a_slice_is_the_loss_of_networks_that_were_moved(network, data):
    one, other = (filter_normalised_direction(network, seed) for seed in (0, 1))
    x, y = data
    line = loss_slice(network, x, y, [one], STEPS, batch_size=4)
    plane = loss_slice(network, x, y, [one, other], STEPS)
    for i, first in enumerate(STEPS.tolist()):
        with torch.no_grad():
            expected = F.cross_entropy(moved(network, (first, one))(x), y)
            assert float(line[i]) == pytest.approx(float(expected), abs=1e-12)
            for j, second in enumerate(STEPS.tolist()):
                model = moved(network, (first, one), (second, other))
                expected = F.cross_entropy(model(x), y)
                assert float(plane[i, j]) == pytest.approx(float(expected), abs=1e-12)
    assert line.std() > 0.01


def test_each_filter_of_the_direction_is_as_long_as_the_networks(network):
    direction = filter_normalised_direction(network, seed=5)
    assert set(direction) == {name for name, _ in network.named_parameters()}
    for name, weight in network.named_parameters():
        if weight.dim() == 1:
            assert (direction[name] == 0).all()
        else:
            lengths = [one.detach().flatten(1).norm(dim=1) for one in (direction[name], weight)]
            torch.testing.assert_close(*lengths)
    again = filter_normalised_direction(network, seed=5)
    assert all(torch.equal(direction[name], again[name]) for name in direction)


def test_scaling_a_convolution_against_its_normalisation_moves_no_normalised_slice(network, data):
    """conv * 10 with mean * 10 and gamma / 10 gives the same answers; a raw slice sees it."""
    scaled = copy.deepcopy(network)
    convolution, norm = scaled.stage1[0].residual[0], scaled.stage1[0].residual[1]
    with torch.no_grad():
        convolution.weight.mul_(10.0)
        norm.running_mean.mul_(10.0)
        norm.weight.div_(10.0)
        torch.testing.assert_close(scaled(data[0]), network(data[0]))
    slices = [
        loss_slice(model, *data, [filter_normalised_direction(model, 3)], STEPS)
        for model in (network, scaled)
    ]
    assert (slices[0] - slices[1]).abs().max() < 1e-7
    generator = torch.Generator().manual_seed(0)
    raw = {
        name: torch.randn(weight.shape, generator=generator).double()
        for name, weight in network.named_parameters()
    }
    slices = [loss_slice(model, *data, [raw], STEPS) for model in (network, scaled)]
    assert (slices[0] - slices[1]).abs().max() > 0.1


def test_in_input_space_each_image_goes_its_own_way(network, data):
    x, y = data
    directions = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    found = input_slice(network, x, y, directions, STEPS)
    with torch.no_grad():
        expected = torch.stack(
            [F.cross_entropy(network(x + s * directions), y, reduction="none") for s in STEPS]
        )
    torch.testing.assert_close(found, expected)
    permuted = input_slice(network, x, y, directions.flip(0), STEPS)
    assert not torch.allclose(permuted, found)


def test_the_width_of_a_parabola_is_known_and_an_open_valley_is_infinite():
    steps = torch.linspace(-2, 2, 401)
    assert doubling_width(steps, 0.5 + steps**2) == pytest.approx(2 * math.sqrt(0.5), abs=1e-3)
    skewed = torch.where(steps > 0, steps, 4 * -steps)
    assert doubling_width(steps, 1.0 + skewed) == pytest.approx(1.25, abs=1e-3)
    assert doubling_width(steps, 10.0 + steps) == math.inf
    assert doubling_width(steps, steps.abs()) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(BadParameter, match="0 among"):
        doubling_width(torch.tensor([-1.0, 1.0]), torch.ones(2))


def test_bad_input_is_refused(network, data):
    direction = filter_normalised_direction(network)
    for directions in ([], [direction] * 3):
        with pytest.raises(BadParameter, match="one direction or two"):
            loss_slice(network, *data, directions, STEPS)
    with pytest.raises(BadData, match="directions"):
        input_slice(network, *data, torch.ones(1, 3, 16, 16), STEPS)
