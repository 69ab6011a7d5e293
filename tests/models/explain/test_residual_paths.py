"""Gradients by path length against the whole gradient, and against paths opened one by one."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.stats import binom
from torch import nn

from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadParameter
from quintain.models.alexnet import alexnet
from quintain.models.deletion import delete_blocks
from quintain.models.explain.residual_paths import (
    gradient_by_path_length,
    path_counts,
    sampled_path_gradients,
)
from quintain.models.resnet import resnet
from quintain.models.wide_resnet import wide_resnet

INPUTS = InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3)
NETWORKS = {
    "residual": partial(resnet, depth=20, width=0.5),
    "pre-activation": partial(resnet, depth=14, width=0.5, block="pre-activation"),
    "projections": partial(resnet, depth=18, width=0.1),
    "wide": partial(wide_resnet, depth=10, width=1),
}


def scattered(model):
    """Batch statistics and head that are not those of a fresh network."""
    torch.manual_seed(2)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
    return model.double().eval()


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 3, 16, 16, generator=generator).double(), torch.tensor([0, 3, 4])


def whole_gradient(model, x, y):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_lengths_add_up_to_the_whole_gradient(name, data):
    torch.manual_seed(0)
    model = scattered(NETWORKS[name](INPUTS))
    found = gradient_by_path_length(model, *data)
    whole = whole_gradient(model, *data)
    assert (found.gradients.sum(dim=0) - whole).abs().max() < 1e-12 * whole.abs().max()
    assert len(found.gradients) == len(found.blocks) + 1
    assert (found.norms > 0).all()
    assert float(found.shares.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["residual", "pre-activation"])
def test_each_length_is_the_sum_of_its_paths(name, data):
    """Every path by itself: in each block one of the two branches is taken out of the graph."""
    torch.manual_seed(0)
    model = scattered(resnet(INPUTS, depth=8, width=0.5, block=name))
    found = gradient_by_path_length(model, *data)
    expected = torch.zeros_like(found.gradients)
    blocks = [model.get_submodule(one) for one in found.blocks]
    for choice in itertools.product((False, True), repeat=3):
        handles = []
        for block, through in zip(blocks, choice, strict=True):
            closed = block.shortcut if through else block.residual
            handles.append(closed.register_forward_hook(lambda _, __, out: out.detach()))
        expected[sum(choice)] += whole_gradient(model, *data)
        for handle in handles:
            handle.remove()
    torch.testing.assert_close(found.gradients, expected, rtol=1e-10, atol=1e-14)


def test_a_deleted_block_adds_no_length(data):
    torch.manual_seed(0)
    model = scattered(resnet(INPUTS, depth=14, width=0.5))
    shorter = delete_blocks(model, ["stage1.1", "stage2.1"])
    found = gradient_by_path_length(shorter, *data)
    whole = whole_gradient(shorter, *data)
    assert (found.gradients.sum(dim=0) - whole).abs().max() < 1e-12 * whole.abs().max()
    assert (found.norms[:5] > 0).all()
    assert (found.norms[5:] == 0).all()


def test_sampled_paths_are_single_paths(data):
    """Of lengths 0 and n there is one path each: every draw is the exact gradient's norm."""
    torch.manual_seed(0)
    model = scattered(resnet(INPUTS, depth=14, width=0.5))
    exact = gradient_by_path_length(model, *data).norms.mean(dim=1)
    sampled = sampled_path_gradients(model, *data, draws=4, seed=1)
    assert sampled.shape == (7, 4)
    for length in (0, 6):
        torch.testing.assert_close(sampled[length], exact[length].expand(4))
    assert len(sampled[3].unique()) > 1
    assert torch.equal(sampled, sampled_path_gradients(model, *data, draws=4, seed=1))
    # what paths carry one by one is not less than what is left of their sum
    many = sampled_path_gradients(model, *data, draws=60).mean(dim=1) * path_counts(6)
    assert (many[1:6] > 0.7 * exact[1:6]).all()


def test_path_lengths_are_binomial_and_of_resnet_110_98_percent_have_19_to_35():
    probabilities = path_counts(54) / 2.0**54
    expected = torch.from_numpy(binom.pmf(range(55), 54, 0.5))
    torch.testing.assert_close(probabilities, expected)
    assert float(probabilities[19:36].sum()) == pytest.approx(0.98, abs=0.005)


def test_a_network_without_blocks_and_no_draws_are_refused(data):
    with pytest.raises(BadParameter, match="no residual blocks"):
        gradient_by_path_length(alexnet(INPUTS, width=0.05).double(), *data)
    with pytest.raises(BadParameter, match="no residual blocks"):
        gradient_by_path_length(resnet(INPUTS, depth=8, block="plain").double(), *data)
    with pytest.raises(BadParameter, match="draws = 0"):
        sampled_path_gradients(resnet(INPUTS, depth=8).double(), *data, draws=0)
