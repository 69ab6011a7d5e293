"""Multiply-adds beside the papers, torchvision, and torch's own counter of operations."""

from functools import partial

import pytest
import torch
import torchvision
from builders import input_spec
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from quintain.bench.api.errors import BadParameter
from quintain.models.alexnet import alexnet
from quintain.models.cost import cost
from quintain.models.googlenet import TABLE, googlenet
from quintain.models.resnet import resnet
from quintain.models.small_cnn import small_cnn
from quintain.models.wide_resnet import wide_resnet

spec = partial(input_spec, n_classes=1000)


def counted(factory, side=224, **options):
    with torch.device("meta"):
        return cost(factory(spec(side), **options), (3, side, side))


@pytest.mark.parametrize(("depth", "stride", "billions"), [
    (18, "3x3", 1.8), (34, "3x3", 3.6), (50, "1x1", 3.8), (101, "1x1", 7.6), (152, "1x1", 11.3),
])  # fmt: skip
def test_residual_networks_cost_what_table_1_says(depth, stride, billions):
    """Rounded down in the paper: with the projections, 34 layers take 3.66e9."""
    found = counted(resnet, depth=depth, bottleneck_stride=stride).multiply_adds
    assert found == pytest.approx(billions * 1e9, rel=0.02)


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "resnet50", "resnext50_32x4d", "vgg11"])
def test_torchvisions_networks_cost_what_it_says(name):
    published = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta
    with torch.device("meta"):
        network = torchvision.models.get_model(name)
    found = cost(network, (3, 224, 224))
    assert found.multiply_adds / 1e9 == pytest.approx(published["_ops"], abs=6e-4)
    assert found.parameters == published["num_params"]
    assert not found.uncounted


@pytest.mark.parametrize(("depth", "name"), [
    (18, "resnet18"), (34, "resnet34"), (50, "resnet50"), (101, "resnet101"), (152, "resnet152"),
])  # fmt: skip
def test_ours_cost_what_torchvision_says_of_the_same_networks(depth, name):
    published = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta
    found = counted(resnet, depth=depth)
    assert found.multiply_adds / 1e9 == pytest.approx(published["_ops"], abs=6e-4)


def place(module):
    part = next(part for part, names in PARTS.items() if module in names)
    return f"{part}.inception{module}"


PARTS = {
    "lower": ("3a", "3b", "4a"),
    "middle": ("4b", "4c", "4d"),
    "upper": ("4e", "5a", "5b"),
}


def test_googlenets_modules_cost_what_table_1_says():
    """In millions. Two figures of the paper are not those of its own layers.

    conv1: 34, where 7x7x3x64 products on a grid of 112x112 are 118. 5a: 54, where its row of
    filters gives 51.1.
    """
    found = counted(googlenet, batch_norm=False, auxiliary=False)
    published = {"3a": 128, "3b": 304, "4a": 73, "4b": 88, "4c": 100, "4d": 119, "4e": 170,
                 "5b": 71}  # fmt: skip
    for row, millions in zip(
        found.of(place(one) for one in published), published.values(), strict=True
    ):
        assert row.multiply_adds / 1e6 == pytest.approx(millions, abs=1.0)
    conv1, reduce2, conv2, odd, head = found.of(
        ["stem.conv1", "stem.reduce2", "stem.conv2", place("5a"), "classifier"]
    )
    assert reduce2.multiply_adds + conv2.multiply_adds == pytest.approx(360e6, abs=1e6)
    assert head.multiply_adds == 1_024_000
    assert conv1.multiply_adds == 7 * 7 * 3 * 64 * 112 * 112
    assert odd.multiply_adds == pytest.approx(51.1e6, abs=0.1e6)
    assert found.multiply_adds == pytest.approx(1.5e9, rel=0.06)
    assert found.multiply_adds - (118e6 - 34e6) == pytest.approx(1.5e9, rel=0.01)


def test_naive_modules_cost_more_and_widen_from_one_to_the_next():
    reduced = counted(googlenet, batch_norm=False, auxiliary=False)
    naive = counted(googlenet, batch_norm=False, auxiliary=False, modules="naive")
    names = [place(one) for one in TABLE]
    paper, without = reduced.table(names), naive.table(names)
    assert (without.parameters > 2 * paper.parameters).all()
    assert (without.multiply_adds > 2 * paper.multiply_adds).all()
    channels = 192
    for name, output in zip(TABLE, without.output, strict=True):
        channels += TABLE[name].one + TABLE[name].three + TABLE[name].five
        assert output[0] == channels
    assert [output[0] for output in paper.output] == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert naive.multiply_adds > 7 * reduced.multiply_adds


def test_two_branches_save_a_third_of_alexnets_cost():
    """By hand from figure 2: filters, channels seen, kernel, grid; then the three dense layers."""
    convolutions = [(96, 3, 11, 55), (256, 48, 5, 27), (384, 256, 3, 13), (384, 192, 3, 13),
                    (256, 192, 3, 13)]  # fmt: skip
    expected = sum(f * c * k * k * side * side for f, c, k, side in convolutions)
    expected += 6 * 6 * 256 * 4096 + 4096 * 4096 + 4096 * 1000
    found = counted(alexnet, groups=2)
    assert found.multiply_adds == expected == pytest.approx(0.72e9, rel=0.01)
    assert counted(alexnet, groups=1).multiply_adds == pytest.approx(1.135e9, rel=0.01)


NETWORKS = {
    "alexnet": partial(alexnet, width=0.125, groups=2),
    "googlenet": partial(googlenet, width=0.0625),
    "resnet-18": partial(resnet, width=0.125),
    "pre-activation": partial(resnet, depth=50, width=0.125, block="pre-activation"),
    "wide-resnet": partial(wide_resnet, depth=10, width=0.5),
    "small-cnn": partial(small_cnn, width=0.25),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_as_many_as_torchs_own_counter_sees(name):
    """It looks at what is computed, below the layers, and counts each multiply-add twice."""
    with torch.device("meta"):
        network = NETWORKS[name](spec(32, n_classes=10)).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, 32, 32))
    assert 2 * cost(network, (3, 32, 32)).multiply_adds == counter.get_total_flops()


def test_transposed_and_one_dimensional_convolutions():
    network = nn.Sequential(
        nn.ConvTranspose2d(3, 6, 4, stride=2, groups=3), nn.Flatten(2), nn.Conv1d(6, 4, 3, stride=2)
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, 5, 7))
    assert 2 * cost(network, (3, 5, 7)).multiply_adds == counter.get_total_flops()


def test_a_layer_called_twice_counts_twice_and_its_weights_once():
    shared = nn.Conv2d(3, 3, 1)
    found = cost(nn.Sequential(shared, nn.ReLU(), shared), (3, 4, 4))
    assert (found.parameters, found.multiply_adds) == (12, 2 * 9 * 16)
    (row,) = found.layers
    assert (row.name, row.calls, row.output) == ("0", 2, (3, 4, 4))


def test_the_table_has_a_row_for_each_layer_with_parameters():
    network = resnet(spec(16), depth=8, width=0.25)
    found = cost(network, (3, 16, 16))
    table = found.table()
    assert list(table.columns) == ["name", "kind", "calls", "output", "parameters", "multiply_adds"]
    assert table.parameters.sum() == found.parameters
    assert table.multiply_adds.sum() == found.multiply_adds
    assert set(table.kind) == {"Conv2d", "BatchNorm2d", "Linear"}
    assert not table.multiply_adds[table.kind == "BatchNorm2d"].any()


def test_auxiliary_classifiers_have_parameters_and_no_cost_in_use():
    found = counted(googlenet)
    heads = found.of(["auxiliary.0", "auxiliary.1"])
    assert all(one.parameters > 2e6 for one in heads)
    assert [one.multiply_adds for one in heads] == [0, 0]
    assert [one.calls for one in heads] == [0, 0]


def test_the_network_is_left_as_it_was():
    network = resnet(spec(16), depth=8, width=0.25)
    network.train()
    network.stage1.eval()
    before = {name: one.clone() for name, one in network.state_dict().items()}
    cost(network, (3, 16, 16))
    assert network.training
    assert network.stage2[0].training
    assert not network.stage1[0].training
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
    assert not any(one._forward_hooks for one in network.modules())


def test_what_is_not_counted_is_named():
    network = nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(16, 2, 8, batch_first=True))
    assert cost(network, (3, 4, 4)).uncounted == ("1.self_attn",)


def test_unknown_layers_are_refused():
    found = counted(resnet, side=32, depth=8)
    with pytest.raises(BadParameter, match=r"no layer 'stage2\.3'; did you mean 'stage2\.0'"):
        found.of(["stage2.3"])
