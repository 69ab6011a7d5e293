import math

import pytest
import torch
from builders import input_spec
from torch import nn

from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadParameter
from quintain.models.layers import (
    LocalResponseNorm,
    Normalise,
    choose_stem,
    dropout_layer,
    initialise,
    input_layer,
    scaled,
)


def test_normalise_gives_each_channel_zero_mean_and_unit_spread():
    images = torch.rand(64, 3, 16, 16) * torch.tensor([1.0, 0.5, 0.1]).reshape(1, 3, 1, 1)
    mean = [images[:, c].mean().item() for c in range(3)]
    std = [images[:, c].std().item() for c in range(3)]
    out = Normalise(mean, std)(images)
    for c in range(3):
        assert out[:, c].mean().item() == pytest.approx(0.0, abs=1e-5)
        assert out[:, c].std().item() == pytest.approx(1.0, abs=1e-5)


def test_normalise_travels_with_the_checkpoint():
    source, target = Normalise((0.1, 0.2), (0.3, 0.4)), Normalise((0.0, 0.0), (1.0, 1.0))
    target.load_state_dict(source.state_dict())
    x = torch.rand(2, 2, 4, 4)
    assert torch.equal(source(x), target(x))
    assert not list(source.parameters())


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan, math.inf])
def test_normalise_refuses_a_useless_spread(std):
    with pytest.raises(BadParameter, match="spread"):
        Normalise((0.5,), (std,))


def test_statistics_must_fit_the_channels():
    with pytest.raises(BadParameter, match="2 channel means but 1"):
        Normalise((0.5, 0.5), (1.0,))
    with pytest.raises(BadParameter, match="1 channel means for images of 3"):
        input_layer(InputSpec((3, 32, 32), 10, (0.5,), (0.25,)))


@pytest.mark.parametrize("channels", [3, 6, 96])
def test_response_norm_is_torchs_with_n_times_the_papers_alpha(channels):
    x = 30.0 * torch.randn(4, channels, 5, 7, dtype=torch.float64)
    reference = nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
    torch.testing.assert_close(LocalResponseNorm()(x), reference(x))


def test_scaled_rounds_to_the_multiple_and_never_to_zero():
    assert scaled(96, 1.0) == 96
    assert scaled(96, 0.125) == 12
    assert scaled(96, 10.0) == 960
    assert scaled(16, 0.001) == 1
    assert scaled(16, 0.3, multiple=2) == 4
    assert scaled(16, 0.001, multiple=2) == 2


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf])
def test_bad_widths_are_refused(width):
    with pytest.raises(BadParameter, match="width"):
        scaled(64, width)


@pytest.mark.parametrize("probability", [-0.1, 1.0, math.nan])
def test_bad_dropout_is_refused(probability):
    with pytest.raises(BadParameter, match="dropout"):
        dropout_layer(probability)


@pytest.mark.parametrize(
    ("side", "stem", "chosen"),
    [
        (16, "auto", "small"),
        (63, "auto", "small"),
        (64, "auto", "imagenet"),
        (32, "imagenet", "imagenet"),
        (224, "small", "small"),
    ],
)
def test_stem_goes_by_the_size_unless_named(side, stem, chosen):
    assert choose_stem("net", input_spec(side), stem, imagenet_from=32) == chosen


def test_the_smaller_side_decides():
    assert choose_stem("net", input_spec(32, 224), "auto", imagenet_from=32) == "small"
    with pytest.raises(BadParameter, match="224x15"):
        choose_stem("net", input_spec(224, 15), "auto", imagenet_from=32)


def test_refusals_say_what_was_given_and_what_would_do():
    with pytest.raises(BadParameter, match=r"net: images of 15x15 are too small.*16x16"):
        choose_stem("net", input_spec(15), "small", imagenet_from=32)
    with pytest.raises(BadParameter, match=r"31x31.*32x32.*use stem 'small'"):
        choose_stem("net", input_spec(31), "imagenet", imagenet_from=32)
    with pytest.raises(BadParameter, match=r"'imagnet' is not one of.*did you mean 'imagenet'"):
        choose_stem("net", input_spec(32), "imagnet", imagenet_from=32)


def test_initial_weights_keep_the_second_moment_through_relu_layers():
    torch.manual_seed(0)
    layers = [nn.Linear(512, 512) for _ in range(10)]
    head = nn.Linear(512, 7)
    initialise(nn.Sequential(*layers, head), heads=[head])
    x = torch.randn(256, 512)
    for layer in layers:
        x = layer(x).relu()
    assert 0.5 < 2.0 * x.square().mean().item() / 2.0 < 2.0
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert all(not layer.bias.any() for layer in [*layers, head])
