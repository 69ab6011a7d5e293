from functools import partial

import pytest
import torch
from builders import input_spec, parameters
from torch import nn

from quintain.bench.api.errors import BadParameter
from quintain.models.alexnet import alexnet

spec = partial(input_spec, n_classes=1000)


def shapes(network, x):
    """Output shape of each named layer."""
    seen = {}
    for name, layer in network.named_modules():
        layer.register_forward_hook(
            lambda _, __, out, name=name: seen.__setitem__(name, tuple(out.shape))
        )
    network(x)
    return seen


@pytest.mark.parametrize(("groups", "count"), [(2, 60_965_224), (1, 62_378_344)])
def test_parameter_count_is_the_papers(groups, count):
    with torch.device("meta"):
        assert parameters(alexnet(spec(224), groups=groups)) == count


@pytest.mark.parametrize("side", [224, 227])
def test_grids_of_figure_2(side):
    with torch.device("meta"):
        seen = shapes(alexnet(spec(side), groups=2), torch.empty(2, 3, side, side))
    assert seen["features.conv1"] == (2, 96, 55, 55)
    assert seen["features.conv2"] == (2, 256, 27, 27)
    assert seen["features.conv3"] == (2, 384, 13, 13)
    assert seen["features.conv5"] == (2, 256, 13, 13)
    assert seen["features.pool5"] == (2, 256, 6, 6)
    assert seen["classifier.fc7"] == (2, 4096)


def test_two_branches_do_not_see_each_other():
    torch.manual_seed(0)
    network = alexnet(spec(16, n_classes=10), width=0.125, groups=2)
    conv2 = network.features.conv2
    x = torch.randn(1, conv2.in_channels, 7, 7)
    changed = x.clone()
    changed[:, : conv2.in_channels // 2] += 1.0
    moved = (conv2(x) != conv2(changed)).flatten(2).any(dim=2)[0]
    half = conv2.out_channels // 2
    assert moved[:half].all()
    assert not moved[half:].any()


def test_options_leave_layers_out():
    kinds = [type(one).__name__ for one in alexnet(spec(16), width=0.125).modules()]
    assert kinds.count("LocalResponseNorm") == 2
    assert kinds.count("Dropout") == 2
    plain = alexnet(spec(16), width=0.125, local_response=False, dropout=0.0)
    assert not any(type(one).__name__ == "LocalResponseNorm" for one in plain.modules())
    x = torch.rand(4, 3, 16, 16)
    assert torch.equal(plain.train()(x), plain(x))


def test_imagenet_stem_starts_at_64():
    with torch.device("meta"):
        network = alexnet(spec(64), stem="imagenet")
        assert network(torch.empty(2, 3, 64, 64)).shape == (2, 1000)
    with pytest.raises(BadParameter, match="64x64"):
        alexnet(spec(63), stem="imagenet")


def test_other_groups_are_refused():
    with pytest.raises(BadParameter, match="groups 3"):
        alexnet(spec(32), groups=3)


def test_strides_and_poolings_change_the_grids_alone():
    wanted = {(2, 1, 1): (32, 8, 8, 4), (2, 4, 1): (8, 2, 2, 1), (2, 1, 4): (32, 8, 2, 1)}
    for (pool, stride, late), sides in wanted.items():
        network = alexnet(spec(32), width=0.125, pool=pool, stride=stride, late_stride=late)
        seen = shapes(network, torch.zeros(1, 3, 32, 32))
        names = ("conv1", "conv3", "conv5", "pool5")
        assert tuple(seen[f"features.{one}"][2] for one in names) == sides
        assert seen[""] == (1, 1000)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"pool": 4}, "pool 4 is not 2 or 3"),
        ({"stride": 0}, "stride 0 must be at least 1"),
        ({"late_stride": -1}, "late_stride -1 must be at least 1"),
        ({"stride": 4}, "8 pixels after the first convolution are too few"),
    ],
)
def test_strides_and_poolings_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(BadParameter, match=said):
        alexnet(spec(32), **wrong)


def test_dropout_is_of_what_the_hidden_layers_give():
    """Section 4.2: the output of each hidden unit of the first two fully connected layers."""
    order = [name for name, _ in alexnet(spec(16), width=0.125).classifier.named_children()]
    assert order == ["fc6", "relu6", "dropout6", "fc7", "relu7", "dropout7", "fc8"]


@pytest.mark.parametrize("groups", [1, 2])
def test_same_outputs_as_torchs_layers_in_the_order_of_figure_2(groups):
    """torch's response normalisation divides alpha by its five channels.

    Torchvision's AlexNet is a later one, of one branch, 64 first filters and no normalisation.
    """
    torch.manual_seed(0)
    ours = alexnet(spec(67, n_classes=10), width=0.25, groups=groups).eval()

    def norm():
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    reference = nn.Sequential(
        nn.Conv2d(3, 24, 11, 4), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(24, 64, 5, padding=2, groups=groups), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 96, 3, padding=1), nn.ReLU(),
        nn.Conv2d(96, 96, 3, padding=1, groups=groups), nn.ReLU(),
        nn.Conv2d(96, 64, 3, padding=1, groups=groups), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(), nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(),
        nn.Linear(1024, 10),
    )  # fmt: skip
    values = [one for name, one in ours.state_dict().items() if not name.startswith("normalise")]
    for one in values:
        one.normal_(std=one[0].numel() ** -0.5 if one.dim() > 1 else 0.5)
    names = list(reference.state_dict())
    reference.load_state_dict(dict(zip(names, values, strict=True)))
    x = torch.rand(4, 3, 67, 67)
    expected = reference((x - 0.5) / 0.25)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.1
