"""Colour selectivity of filters that are made for one thing."""

import pytest
import torch
from torch import nn

from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadParameter
from quintain.models.alexnet import alexnet
from quintain.models.explain.filters import branch_difference, colour_selectivity, first_filters


def test_brightness_is_zero_colour_is_one_and_a_mixture_in_between():
    edge = torch.randn(1, 1, 5, 5).expand(1, 3, 5, 5)
    opponent = torch.randn(1, 1, 5, 5) * torch.tensor([1.0, -2.0, 1.0]).reshape(1, 3, 1, 1)
    opponent = opponent * edge.norm() / opponent.norm()
    filters = torch.cat([edge, opponent, edge + opponent, torch.zeros_like(edge)])
    expected = torch.tensor([0.0, 1.0, 0.5, 0.0]).double()
    torch.testing.assert_close(colour_selectivity(filters), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        colour_selectivity(7 * filters), colour_selectivity(filters), atol=1e-6, rtol=0
    )


def test_a_grey_image_gives_a_filter_of_selectivity_one_nothing():
    filters = torch.randn(8, 3, 5, 5)
    filters = filters - filters.mean(dim=1, keepdim=True)
    torch.testing.assert_close(colour_selectivity(filters), torch.ones(8).double())
    grey = torch.rand(4, 1, 5, 5).expand(4, 3, 5, 5)
    assert nn.functional.conv2d(grey, filters).abs().max() < 1e-5


def test_independent_weights_have_two_thirds_and_their_halves_do_not_differ():
    filters = torch.randn(2000, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    found = colour_selectivity(filters)
    assert float(found.mean()) == pytest.approx(2 / 3, abs=0.01)
    assert branch_difference(found) < 0.01


def test_the_branches_of_alexnet_are_the_halves_of_its_first_filters():
    model = alexnet(InputSpec((3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3), width=0.1, groups=2)
    filters = first_filters(model)
    assert torch.equal(filters, model.features.conv1.weight)
    with torch.no_grad():  # the second branch reads the second half alone
        model.features.conv1.weight[: len(filters) // 2] = 1.0
    found = colour_selectivity(first_filters(model))
    assert branch_difference(found) == pytest.approx(float(found.chunk(2)[1].mean()))
    assert model.features.conv2.groups == 2


def test_bad_input_is_refused():
    with pytest.raises(BadParameter, match="no convolution"):
        first_filters(nn.Linear(2, 2))
    with pytest.raises(BadParameter, match="not"):
        colour_selectivity(torch.rand(4, 1, 3, 3))
    with pytest.raises(BadParameter, match="3 filters"):
        branch_difference(torch.rand(3))
