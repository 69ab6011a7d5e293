import pytest
import torch
import torchvision

from quintain.bench.errors import BadParameter
from quintain.bench.protocols import InputSpec
from quintain.models.resnet import Bottleneck, ZeroPadding, resnet


def spec(side, channels=3, n_classes=1000):
    return InputSpec((channels, side, side), n_classes, (0.5,) * channels, (0.25,) * channels)


def parameters(network):
    return sum(one.numel() for one in network.parameters())


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


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152, 8, 14, 20, 32, 44, 56, 110])
def test_depth_counts_the_weighted_layers(depth):
    with torch.device("meta"):
        network = resnet(spec(32), depth=depth)
    weighted = [
        name
        for name, one in network.named_modules()
        if isinstance(one, (torch.nn.Conv2d, torch.nn.Linear)) and "shortcut" not in name
    ]
    assert len(weighted) == depth


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_same_outputs_as_torchvision_with_copied_weights(name):
    torch.manual_seed(0)
    reference = getattr(torchvision.models, name)(num_classes=10)
    ours = resnet(spec(64, n_classes=10), depth=int(name.removeprefix("resnet")))
    values = list(reference.state_dict().values())
    with torch.no_grad():
        for one in values:
            if one.dim() == 1:
                one.uniform_(0.5, 1.5)
    names = [one for one in ours.state_dict() if not one.startswith("normalise")]
    ours.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = reference.eval()((x - 0.5) / 0.25)
        torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1e-2


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


def test_zero_padding_shortcut_skips_pixels_and_adds_zeros():
    x = torch.rand(2, 3, 7, 8)
    out = ZeroPadding(3, 5, 2)(x)
    assert out.shape == (2, 5, 4, 4)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert not out[:, 3:].any()


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
    assert isinstance(thin.stage1[0], Bottleneck)


@pytest.mark.parametrize(("depth", "nearest"), [(19, 18), (21, 20), (1000, 152)])
def test_unknown_depth_names_the_valid_ones(depth, nearest):
    with pytest.raises(BadParameter, match=f"depth {depth} .*8, 14, 18.*nearest is {nearest}$"):
        resnet(spec(32), depth=depth)
