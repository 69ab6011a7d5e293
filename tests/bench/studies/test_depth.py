"""Which layers a study follows a network through."""

import pytest
import torch

from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadParameter
from quintain.bench.studies.depth import checked_layers, layers_by_depth
from quintain.bench.training.networks import build_network

INPUTS = InputSpec((1, 16, 16), 10, (0.5,), (0.25,))


def network(**spec):
    return build_network(spec, INPUTS, 0).eval()


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ({"name": "resnet", "depth": 8}, ["stem.0", "stage1", "stage2", "stage3", "pool", ""]),
        (
            {"name": "alexnet", "width": 0.125},
            ["features.conv1", "features.norm2", "features.relu5", "features.pool5", ""],
        ),
        (
            {"name": "googlenet", "width": 0.125},
            ["stem.conv1.conv", "lower.inception3b", "upper.inception4e", "upper", ""],
        ),
    ],
    ids=lambda one: one["name"] if isinstance(one, dict) else "",
)
def test_layers_are_whole_ones_first_to_last(spec, layers):
    found = layers_by_depth(network(**spec), torch.rand(1, 1, 16, 16), len(layers))
    assert found == layers


def test_a_layer_that_is_not_there_is_named_with_the_nearest_and_all():
    given = network(name="resnet", depth=8)
    with pytest.raises(BadParameter, match=r"did you mean 'stage3'\?; there are .*stem.*logits"):
        checked_layers(given, torch.rand(1, 1, 16, 16), ("stage9",))
