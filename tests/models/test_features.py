"""Features by name, also where networks make it hard: operations in place, layers called twice."""

import pytest
import torch
import torchvision
from builders import input_spec, random_images
from torch import nn

from quintain.bench.api.errors import BadParameter
from quintain.models.features import features
from quintain.models.googlenet import googlenet
from quintain.models.resnet import resnet

INPUTS = input_spec(16, n_classes=5)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return resnet(INPUTS, depth=8, width=0.25).eval()


@pytest.fixture
def x():
    return random_images(4, 3, 16, 16)


def test_each_layer_gives_what_running_the_layers_by_hand_gives(network, x):
    found = features(network, x, ["classifier", "stem", "stage2.0", "stage2"])
    assert list(found) == ["classifier", "stem", "stage2.0", "stage2"]
    stem = network.stem(network.normalise(x))
    block = network.stage2[0](network.stage1(stem))
    assert torch.equal(found["stem"], stem)
    assert torch.equal(found["stage2.0"], block)
    assert torch.equal(found["stage2"], network.stage2(network.stage1(stem)))
    assert torch.equal(found["classifier"], network(x))


def test_the_network_is_left_as_it_was(network, x):
    before = network(x)
    features(network, x, ["stage1"])
    with pytest.raises(BadParameter):
        features(network, x, ["stage1", "stage9"])
    with pytest.raises(RuntimeError):
        features(network, x[:, :2], ["stage1"])
    assert not any(one._forward_hooks for one in network.modules())
    assert torch.equal(network(x), before)


def test_a_map_can_differentiate_the_logits_as_grad_cam_does(network, x):
    found = features(network, x, ["stage1", "stage3", "classifier"])
    logits = found["classifier"].sum()
    upper, lower = torch.autograd.grad(logits, [found["stage3"], found["stage1"]])
    stage1 = found["stage1"].detach().requires_grad_()
    stage3 = network.stage3(network.stage2(stage1))
    tail = network.classifier(network.flatten(network.pool(stage3))).sum()
    expected = torch.autograd.grad(tail, [stage3, stage1])
    torch.testing.assert_close(upper, expected[0])
    torch.testing.assert_close(lower, expected[1])


def test_gradients_reach_the_image(network, x):
    x.requires_grad_()
    features(network, x, ["stage2"])["stage2"].square().sum().backward()
    assert (x.grad != 0).any(dim=0).all()
    with torch.no_grad():
        assert not features(network, x, ["stage2"])["stage2"].requires_grad


def test_operations_in_place_do_not_change_what_was_read(x):
    """torchvision's ReLUs overwrite what the normalisation before them gave."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=5).eval()
    found = features(network, x, ["conv1", "bn1", "relu", "layer1.0.bn2", "fc"])
    normalised = network.bn1(network.conv1(x))
    assert torch.equal(found["conv1"], network.conv1(x))
    assert torch.equal(found["bn1"], normalised)
    assert (found["bn1"] < 0).any()
    assert torch.equal(found["relu"], normalised.relu())
    assert (found["layer1.0.bn2"] < 0).any()
    assert torch.equal(found["fc"], network(x))
    (gradient,) = torch.autograd.grad(found["fc"].sum(), found["bn1"])
    assert gradient.any()


def test_a_layer_called_twice_needs_to_be_told_which_call(x):
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=5).eval()
    name = "layer1.0.relu"
    with pytest.raises(BadParameter, match=f"called 2 times; say which: '{name}:1'"):
        features(network, x, [name])
    found = features(network, x, [f"{name}:2", f"{name}:1", "layer1.0", "layer1.0.conv2"])
    assert torch.equal(found[f"{name}:2"], found["layer1.0"])
    block = network.layer1[0]
    assert torch.equal(found["layer1.0.conv2"], block.conv2(found[f"{name}:1"]))
    with pytest.raises(BadParameter, match=f"'{name}:3': it is called 2 times only"):
        features(network, x, [f"{name}:3"])
    with pytest.raises(BadParameter, match="'0' is not the number of a call"):
        features(network, x, [f"{name}:0"])


def test_one_layer_under_two_names_can_be_read_by_both(x):
    relu = nn.ReLU()
    network = nn.Sequential(nn.Conv2d(3, 4, 1), relu, nn.Conv2d(4, 4, 1), relu)
    found = features(network, x, ["1:1", "3:2"])
    assert torch.equal(found["3:2"], network(x))
    assert torch.equal(found["1:1"], relu(network[0](x)))


@pytest.mark.parametrize(("name", "says"), [
    ("stag2", "no layer 'stag2'; did you mean 'stage2'. the network has normalise, stem, stage1"),
    ("stage2.7", r"no layer 'stage2.7'; did you mean 'stage2.0'. 'stage2' has 0$"),
    ("stage2.0.residual.9.9", "'stage2.0.residual' has 0, 1, 2, 3, 4$"),
    ("zzzz", "no layer 'zzzz'; the network has normalise"),
    ("", "no layer ''; the network has"),
])  # fmt: skip
def test_unknown_layers_name_the_closest_and_what_there_is(network, x, name, says):
    with pytest.raises(BadParameter, match=says):
        features(network, x, [name])


def test_what_is_not_called_and_what_is_no_tensor_is_said(x):
    network = googlenet(INPUTS, width=0.0625).eval()
    with pytest.raises(BadParameter, match=r"'auxiliary.0' is not called"):
        features(network, x, ["auxiliary.0"])
    network.train()
    assert features(network, x, ["auxiliary.0"])["auxiliary.0"].shape == (4, 5)
    with pytest.raises(BadParameter, match="layer '0' gives a tuple"):
        features(nn.Sequential(network), x, ["0"])
