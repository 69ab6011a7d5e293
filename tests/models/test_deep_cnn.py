import pytest
import torch
from builders import input_spec

from quintain.bench.api.errors import BadParameter
from quintain.models.deep_cnn import deep_cnn


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_the_layers_compute_what_the_docstring_says(activation):
    torch.manual_seed(0)
    network = deep_cnn(input_spec(8), depth=2, activation=activation, skips=True, width=0.125)
    function = getattr(torch, activation)
    x = torch.rand(2, 3, 8, 8)
    inner = network.reduce(function(network.stem(network.normalise(x))))
    for layer in network.layers:
        inner = inner + function(layer.conv(inner))
    expected = network.classifier(inner.mean(dim=(2, 3)))
    torch.testing.assert_close(network(x), expected)


def test_without_skips_nothing_is_added():
    network = deep_cnn(input_spec(8), depth=3, activation="relu", width=0.125)
    for layer in network.layers:
        torch.nn.init.zeros_(layer.conv.weight)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(network(x)[0], network(x)[1])
    skipping = deep_cnn(input_spec(8), depth=3, activation="relu", width=0.125, skips=True)
    skipping.load_state_dict(network.state_dict())
    assert not torch.equal(skipping(x)[0], skipping(x)[1])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"depth": 0}, "depth 0"), ({"activation": "sigmoids"}, "sigmoid"), ({"width": -1}, "width")],
)
def test_what_cannot_be_is_refused(wrong, said):
    with pytest.raises(BadParameter, match=said):
        deep_cnn(input_spec(8), **wrong)
