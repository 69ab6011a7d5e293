"""Edits of residual networks against the same layers run by hand."""

from functools import partial

import pytest
import torch

from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadParameter
from quintain.models.deletion import block_names
from quintain.models.explain.block_edits import (
    random_blocks,
    random_swaps,
    remove_shortcuts,
    swap_blocks,
)
from quintain.models.googlenet import googlenet
from quintain.models.resnet import resnet

INPUTS = InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3)
KINDS = {
    "residual": partial(resnet, depth=20, width=0.25),
    "pre-activation": partial(resnet, depth=20, width=0.25, block="pre-activation"),
    "plain": partial(resnet, depth=20, width=0.25, block="plain"),
    "projections": partial(resnet, depth=34, width=0.1),
}


@pytest.fixture
def x():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=KINDS)
def network(request):
    torch.manual_seed(0)
    return KINDS[request.param](INPUTS).eval()


def test_swapped_blocks_stand_in_each_others_place(network, x):
    [pair] = random_swaps(network, 1, seed=3)
    before = network(x)
    swapped = swap_blocks(network, [pair])
    stages = {
        name: block for name, block in network.named_children() if name not in ("pool", "flatten")
    }
    z = x
    for name, part in stages.items():
        if not name.startswith("stage"):
            z = part(z.mean(dim=(2, 3)) if name == "classifier" else z)
            continue
        for number in range(len(part)):
            here = f"{name}.{number}"
            there = {pair[0]: pair[1], pair[1]: pair[0]}.get(here, here)
            z = network.get_submodule(there)(z)
    torch.testing.assert_close(swapped(x), z)
    assert not torch.allclose(swapped(x), before)
    assert torch.equal(swap_blocks(swapped, [pair])(x), before)
    assert torch.equal(network(x), before)


def test_swaps_stay_within_a_shape_and_depend_on_the_seed(network):
    pairs = random_swaps(network, 30, seed=1)
    for one, other in pairs:
        assert one != other
        assert one.split(".")[0] == other.split(".")[0]
        shapes = [
            [value.shape for value in network.get_submodule(name).state_dict().values()]
            for name in (one, other)
        ]
        assert shapes[0] == shapes[1]
    assert pairs == random_swaps(network, 30, seed=1)
    assert pairs != random_swaps(network, 30, seed=2)


def test_random_blocks_are_different_in_order_and_evenly_drawn(network):
    names = block_names(network)
    drawn = [random_blocks(network, 3, seed) for seed in range(300)]
    assert all(list(one) == sorted(set(one), key=names.index) for one in drawn)
    counts = [sum(name in one for one in drawn) for name in names]
    expected = 300 * 3 / len(names)
    assert all(0.6 * expected < count < 1.4 * expected for count in counts)
    assert random_blocks(network, len(names)) == names
    with pytest.raises(BadParameter, match="blocks of the"):
        random_blocks(network, len(names) + 1)


def test_without_its_shortcut_a_block_is_its_branch(x):
    torch.manual_seed(0)
    model = resnet(INPUTS, depth=18, width=0.1).eval()
    without = remove_shortcuts(model, ["stage2.0", "stage1.1"])
    assert list(without.state_dict()) == list(model.state_dict())
    z = torch.rand(2, *model.stage1(model.stem(model.normalise(x))).shape[1:])
    torch.testing.assert_close(without.stage2[0](z), model.stage2[0].residual(z).relu())
    torch.testing.assert_close(without.stage1[1](z), model.stage1[1].residual(z).relu())
    assert torch.equal(without.stage1[0](z), model.stage1[0](z))
    early = resnet(INPUTS, depth=14, width=0.25, block="pre-activation").eval()
    z = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(
        remove_shortcuts(early, ["stage1.1"]).stage1[1](z),
        early.stage1[1].residual(early.stage1[1].activation(z)),
    )


def test_bad_input_is_refused():
    model = resnet(INPUTS, depth=14, width=0.25)
    with pytest.raises(BadParameter, match=r"no block 'stage1\.9'; did you mean 'stage1"):
        swap_blocks(model, [("stage1.9", "stage1.1")])
    with pytest.raises(BadParameter, match="different shapes"):
        swap_blocks(model, [("stage1.1", "stage2.1")])
    with pytest.raises(BadParameter, match="no block 'x'"):
        remove_shortcuts(model, ["x"])
    plain = resnet(INPUTS, depth=14, width=0.25, block="plain")
    with pytest.raises(BadParameter, match=r"'stage1\.1' has no shortcut"):
        remove_shortcuts(plain, ["stage1.1"])
    with pytest.raises(BadParameter, match="no two blocks"):
        random_swaps(googlenet(INPUTS, width=0.0625), 1)
    with pytest.raises(BadParameter, match="no two blocks"):
        random_swaps(resnet(INPUTS, depth=8), 1)
