import pytest
import torch
from builders import input_spec, parameters
from torch import nn

from quintain.bench.api.errors import BadParameter
from quintain.models.wide_resnet import wide_resnet


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [
        (40, 1, 0.6),
        (40, 2, 2.2),
        (40, 4, 8.9),
        (40, 8, 35.7),
        (28, 10, 36.5),
        (28, 12, 52.5),
        (22, 8, 17.2),
        (22, 10, 26.8),
        (16, 8, 11.0),
        (16, 10, 17.1),
    ],
)
def test_parameter_counts_are_those_of_table_4(depth, width, millions):
    with torch.device("meta"):
        network = wide_resnet(input_spec(32), depth=depth, width=width)
    assert round(parameters(network) / 1e6, 1) == millions


def test_the_networks_that_robust_training_uses():
    with torch.device("meta"):
        assert parameters(wide_resnet(input_spec(32))) == 36_479_194
        assert parameters(wide_resnet(input_spec(32), depth=34)) == 46_160_474


@pytest.mark.parametrize("depth", [10, 16, 28, 40])
def test_depth_counts_the_convolutions(depth):
    with torch.device("meta"):
        network = wide_resnet(input_spec(32), depth=depth, width=2)
    assert sum(isinstance(one, nn.Conv2d) for one in network.modules()) == depth


def test_dropout_reaches_every_block():
    with torch.device("meta"):
        network = wide_resnet(input_spec(32), depth=16, width=1, dropout=0.3)
    assert [one.p for one in network.modules() if isinstance(one, nn.Dropout)] == [0.3] * 6


@pytest.mark.parametrize(("options", "says"), [
    ({"depth": 18}, "depth 18 is not 6n .*nearest is 16$"),
    ({"depth": 4}, "nearest is 10$"),
    ({"depth": -8}, "nearest is 10$"),
    ({"width": 0}, "width 0 must be positive"),
    ({"dropout": 1.0}, "dropout 1.0"),
])  # fmt: skip
def test_what_cannot_be_built_is_refused(options, says):
    with pytest.raises(BadParameter, match=says):
        wide_resnet(input_spec(32), **options)
