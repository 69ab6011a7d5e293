from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from builders import input_spec, parameters
from torch import nn

from quintain.bench.api.errors import BadParameter
from quintain.models.layers import input_layer
from quintain.models.resnet import PLANS, resnet

spec = partial(input_spec, n_classes=1000)


@pytest.mark.parametrize(
    ("depth", "count"),
    [
        (18, 11_689_512),
        (34, 21_797_672),
        (50, 25_557_032),
        (101, 44_549_160),
        (152, 60_192_808),
    ],
)
def test_parameter_counts_for_imagenet(depth, count):
    with torch.device("meta"):
        assert parameters(resnet(spec(224), depth=depth)) == count


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_parameter_counts_for_cifar_are_those_of_table_6(depth, millions):
    with torch.device("meta"):
        count = parameters(resnet(spec(32, n_classes=10), depth=depth))
    digits = 1 if depth == 110 else 2
    assert round(count / 1e6, digits) == millions


@pytest.mark.parametrize("depth", sorted(PLANS.keys() - {1001}))  # it takes two seconds
def test_depth_counts_the_weighted_layers(depth):
    with torch.device("meta"):
        network = resnet(spec(32), depth=depth)
    weighted = [
        name
        for name, one in network.named_modules()
        if isinstance(one, (torch.nn.Conv2d, torch.nn.Linear)) and "shortcut" not in name
    ]
    assert len(weighted) == depth


@pytest.mark.parametrize(("depth", "millions"), [(110, 1.7), (164, 1.7)])
def test_parameter_counts_with_pre_activation_are_those_of_table_5(depth, millions):
    """Of arXiv:1605.07146. It says 10.2 for 1001 layers; docs/models.md has what it comes to."""
    with torch.device("meta"):
        network = resnet(spec(32, n_classes=10), depth=depth, block="pre-activation")
    assert round(parameters(network) / 1e6, 1) == millions


def test_pre_activation_resnet_18_is_the_one_of_fast_adversarial_training():
    with torch.device("meta"):
        network = resnet(spec(32, n_classes=10), block="pre-activation")
    assert parameters(network) == 11_172_170


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_same_outputs_as_torchvision_with_copied_weights(depth):
    with torch.device("meta"):
        reference = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
        ours = resnet(spec(32, n_classes=10), depth=depth, stem="imagenet")
    reference, values = filled(reference)
    ours.normalise = input_layer(spec(32))
    names = [one for one in ours.state_dict() if not one.startswith("normalise")]
    copied = dict(zip(names, values, strict=True))
    ours.load_state_dict(copied, strict=False, assign=True)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = reference.eval()((x - 0.5) / 0.25)
        torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1e-2


def filled(network):
    """A network from the meta device with random weights and statistics, and all its tensors."""
    generator = torch.Generator().manual_seed(0)
    network = network.to_empty(device="cpu")
    values = list(network.state_dict().values())
    for one in values:
        if one.dim() == 0:
            one.zero_()
        elif one.dim() == 1:
            one.uniform_(0.5, 1.5, generator=generator)
        else:
            one.normal_(std=one[0].numel() ** -0.5, generator=generator)
    return network, values


@pytest.mark.parametrize("depth", [14, 18, 50])
def test_pre_activation_is_that_of_the_paper(depth):
    """By functions on the weights alone; tests/models/test_against_timm.py has another's code."""
    torch.manual_seed(0)
    network = resnet(spec(16, n_classes=10), depth=depth, width=0.25, block="pre-activation")
    weights = network.state_dict()
    for name, one in weights.items():
        if one.dim() == 1 and "classifier" not in name:
            one.uniform_(0.5, 1.5)
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(network.eval()(x), pre_activated(weights, PLANS[depth], x))


def pre_activated(weights, plan, x):
    def active(name, x):
        w = [weights[f"{name}.{one}"] for one in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *w))

    def convolve(name, x, stride):
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = active("stem.1", convolve("stem.0", (x - 0.5) / 0.25, 1))
    for stage, count in enumerate(plan.blocks, start=1):
        for index in range(count):
            name = f"stage{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            first = stage == 1 and index == 0
            inner = x if first else active(f"{name}.activation.0", x)
            last = max(int(one.split(".")[3]) for one in weights if f"{name}.residual" in one)
            branch = convolve(f"{name}.residual.0", inner, 1 if last == 6 else stride)
            for at in range(1, last, 3):
                branch = active(f"{name}.residual.{at}", branch)
                strided = last == 6 and at == 1
                branch = convolve(f"{name}.residual.{at + 2}", branch, stride if strided else 1)
            around = x
            if branch.shape != x.shape:
                if plan.projected:
                    around = convolve(f"{name}.shortcut.0", inner, stride)
                else:
                    around = F.pad(
                        inner[:, :, ::stride, ::stride],
                        (0, 0, 0, 0, 0, branch.shape[1] - x.shape[1]),
                    )
            x = around + branch
    pooled = active("activation.0", x).mean(dim=(2, 3))
    return F.linear(pooled, weights["classifier.weight"], weights["classifier.bias"])


@pytest.mark.parametrize("depth", [8, 18, 50])
def test_plain_has_the_layers_of_the_residual_network_and_no_way_around(depth):
    torch.manual_seed(0)
    residual = resnet(spec(16, n_classes=10), depth=depth, width=0.125)
    plain = resnet(spec(16, n_classes=10), depth=depth, width=0.125, block="plain")
    shapes = {
        name.replace("residual", "layers"): one.shape
        for name, one in residual.state_dict().items()
        if "shortcut" not in name
    }
    assert shapes == {name: one.shape for name, one in plain.state_dict().items()}
    x = torch.rand(2, 3, 16, 16)
    for block in (plain.stage1[-1], residual.stage1[-1]):
        layers = next(iter(block.children()))
        for one in layers[-1].parameters():
            nn.init.zeros_(one)
    assert not plain.eval()(x).any()
    assert residual.eval()(x).any()


def test_stride_in_the_first_convolution_of_a_bottleneck():
    with torch.device("meta"):
        early = resnet(spec(224), depth=50, bottleneck_stride="1x1")
        late = resnet(spec(224), depth=50)
    strides = [
        [one.stride[0] for one in network.stage2[0].residual if isinstance(one, nn.Conv2d)]
        for network in (early, late)
    ]
    assert strides == [[2, 1, 1], [1, 2, 1]]
    assert early.state_dict().keys() == late.state_dict().keys()


@pytest.mark.parametrize(("options", "says"), [
    ({"block": "preactivation"}, "'preactivation' is not one of residual, pre-activation, plain"),
    ({"bottleneck_stride": "1x1"}, "depth 18 has no bottlenecks"),
    ({"depth": 50, "bottleneck_stride": "5x5"}, "'5x5' is not one of"),
])  # fmt: skip
def test_other_options_are_refused(options, says):
    with pytest.raises(BadParameter, match=says):
        resnet(spec(32), **options)


def test_grids_of_table_1_and_of_the_cifar_family():
    def grids(network, x):
        seen = []
        for name, stage in network.named_children():
            if name.startswith("stage"):
                stage.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
        network(x)
        return seen

    with torch.device("meta"):
        large = grids(resnet(spec(224), depth=50), torch.empty(2, 3, 224, 224))
        small = grids(resnet(spec(32), depth=20), torch.empty(2, 3, 32, 32))
    assert large == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    assert small == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_a_block_with_no_residual_is_its_shortcut():
    torch.manual_seed(0)
    network = resnet(spec(32, n_classes=10), depth=8, width=0.25).eval()
    x = torch.rand(2, 3, 32, 32)
    entered = network.stem(network.normalise(x))
    for parameter in network.stage1[0].residual[4].parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(network.stage1(entered), entered)


def test_width_multiplies_every_channel():
    with torch.device("meta"):
        network = resnet(spec(32), depth=20, width=10)
        thin = resnet(spec(32), depth=50, width=0.25)
    assert [one[-1].residual[3].out_channels for one in (network.stage1, network.stage3)] == [
        160,
        640,
    ]
    assert thin.classifier.in_features == 512


@pytest.mark.parametrize(("depth", "nearest"), [(19, 18), (21, 20), (1000, 1001)])
def test_unknown_depth_names_the_valid_ones(depth, nearest):
    with pytest.raises(BadParameter, match=f"depth {depth} .*8, 14, 18.*nearest is {nearest}$"):
        resnet(spec(32), depth=depth)
