import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from builders import input_spec, random_images

from quintain.bench.api.errors import BadParameter
from quintain.bench.victim.batchnorm_folding import fold
from quintain.models.cost import cost
from quintain.models.deletion import block_names, delete_blocks
from quintain.models.googlenet import googlenet
from quintain.models.resnet import resnet
from quintain.models.wide_resnet import wide_resnet

INPUTS = input_spec(16, n_classes=5)
KINDS = {
    "residual": partial(resnet, block="residual"),
    "pre-activation": partial(resnet, block="pre-activation"),
    "plain": partial(resnet, block="plain"),
}


@pytest.fixture
def x():
    return random_images(8, 3, 16, 16)


@pytest.fixture(params=KINDS)
def network(request):
    torch.manual_seed(0)
    return KINDS[request.param](INPUTS, depth=14, width=0.25).eval()


def test_names_are_those_of_the_blocks_in_order(network):
    names = tuple(f"stage{stage}.{index}" for stage in (1, 2, 3) for index in (0, 1))
    assert block_names(network) == names
    assert block_names(wide_resnet(INPUTS, depth=16, width=1)) == names
    assert block_names(googlenet(INPUTS, width=0.0625)) == ()


def test_the_network_is_then_the_one_without_the_block(network, x):
    shorter = copy.deepcopy(network)
    del shorter.stage2[1]
    remaining = delete_blocks(network, ["stage2.1"])
    assert torch.equal(remaining(x), shorter(x))
    assert not torch.equal(remaining(x), network(x))


def test_the_network_given_is_left_alone_and_checkpoints_fit_both(network, x):
    before = network(x)
    remaining = delete_blocks(network, ["stage1.0", "stage3.1"])
    assert torch.equal(network(x), before)
    weights = network.state_dict()
    assert list(remaining.state_dict()) == list(weights)
    other = delete_blocks(refilled(network), ["stage1.0", "stage3.1"])
    other.load_state_dict(weights)
    assert torch.equal(other.eval()(x), remaining(x))


def refilled(network):
    """A network of the same layers with other weights."""
    fresh = copy.deepcopy(network)
    for one in fresh.parameters():
        torch.nn.init.normal_(one)
    return fresh


def test_all_blocks_that_keep_the_shape_can_go_together_and_twice(network, x):
    names = [one for one in block_names(network) if one.endswith(".1")]
    shorter = copy.deepcopy(network)
    for stage in (shorter.stage1, shorter.stage2, shorter.stage3):
        del stage[1]
    remaining = delete_blocks(delete_blocks(network, names), names)
    assert torch.equal(remaining(x), shorter(x))


@pytest.mark.parametrize("depth", [14, 18, 50])
def test_where_the_shape_changes_the_shortcut_remains(x, depth):
    torch.manual_seed(0)
    network = resnet(INPUTS, depth=depth, width=0.125).eval()
    block = network.stage2[0]
    inside = network.stage1(network.stem(network.normalise(x)))
    remaining = delete_blocks(network, ["stage2.0"])
    expected = F.relu(block.shortcut(inside))
    assert torch.equal(remaining.stage2[0](inside), expected)
    assert expected.any()

    ahead = resnet(INPUTS, depth=depth, width=0.125, block="pre-activation").eval()
    block = ahead.stage2[0]
    inside = ahead.stage1(ahead.stem(ahead.normalise(x)))
    remaining = delete_blocks(ahead, ["stage2.0"])
    assert torch.equal(remaining.stage2[0](inside), block.shortcut(block.activation(inside)))


def test_a_plain_network_has_no_way_around_where_the_shape_changes():
    network = resnet(INPUTS, depth=8, width=0.25, block="plain")
    with pytest.raises(BadParameter, match=r"block 'stage2.0' cannot be deleted: a plain block"):
        delete_blocks(network, ["stage2.0"])


def test_what_is_left_trains_and_what_is_deleted_does_not(network, x):
    remaining = delete_blocks(network, ["stage2.1"]).train()
    remaining(x).square().sum().backward()
    learning = {name: one.grad is not None for name, one in remaining.named_parameters()}
    assert not any(on for name, on in learning.items() if name.startswith("stage2.1"))
    assert all(on for name, on in learning.items() if not name.startswith("stage2.1"))
    statistics = remaining.state_dict()["stage2.0." + first_norm(remaining) + ".running_mean"]
    assert statistics.any()


def first_norm(network):
    found = network.stage2[0].named_modules()
    return next(name for name, one in found if isinstance(one, torch.nn.BatchNorm2d))


def test_a_deleted_block_costs_nothing_and_folds(network, x):
    remaining = delete_blocks(network, ["stage1.1"])
    whole, less = cost(network, (3, 16, 16)), cost(remaining, (3, 16, 16))
    (block,) = whole.of(["stage1.1"])
    assert whole.multiply_adds - less.multiply_adds == block.multiply_adds > 0
    assert whole.parameters == less.parameters
    torch.testing.assert_close(fold(remaining, x)(x), remaining(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "says"), [
    ("stage2.2", "no block 'stage2.2'; did you mean 'stage2.[01]'. there are: stage1.0, "),
    ("stem", "no block 'stem'.* there are: stage1.0"),
])  # fmt: skip
def test_unknown_blocks_name_what_there_is(network, name, says):
    with pytest.raises(BadParameter, match=says):
        delete_blocks(network, [name])


def test_a_network_without_blocks_says_so():
    with pytest.raises(BadParameter, match="no block 'inception3a'; the network has none"):
        delete_blocks(googlenet(INPUTS, width=0.0625), ["inception3a"])
