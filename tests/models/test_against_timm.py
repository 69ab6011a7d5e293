"""Pre-activation networks beside timm's, with the same weights. timm must be installed."""

import pytest
import torch
from builders import input_spec
from torch import nn

from quintain.models.resnet import resnet
from quintain.models.wide_resnet import wide_resnet

INPUTS = input_spec(32)


def in_the_order_of_timm(network):
    """Our tensors as timm has them: in each block its projection, then norms and convolutions."""
    first, norm, _ = network.stem
    yield first
    for name, stage in network.named_children():
        if not name.startswith("stage"):
            continue
        for block in stage:
            if not isinstance(block.shortcut, nn.Identity):
                yield from block.shortcut
            yield norm if isinstance(block.activation, nn.Identity) else block.activation[0]
            yield from (one for one in block.residual if not isinstance(one, nn.ReLU))
    yield network.activation[0]
    yield network.classifier


def tensors(module):
    return [one for one in module.state_dict().values() if one.dim()]


def same_outputs(ours, theirs):
    generator = torch.Generator().manual_seed(0)
    sources = [one for layer in in_the_order_of_timm(ours) for one in tensors(layer)]
    targets = [one for one in tensors(theirs) if one.dim()]
    assert len(sources) == len(targets)
    for source, target in zip(sources, targets, strict=True):
        if source.dim() == 1:
            source.uniform_(0.5, 1.5, generator=generator)
        target.copy_(source.reshape(target.shape))
    x = torch.rand(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        expected = theirs.eval()((x - 0.5) / 0.25)
        torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1e-3


def built_by_timm(layers, channels, stem, *, is_basic):
    from timm.layers import BatchNormAct2d, create_conv2d
    from timm.models.resnetv2 import ResNetV2

    network = ResNetV2(
        layers,
        channels,
        num_classes=10,
        stem_chs=stem,
        basic=is_basic,
        bottle_ratio=1.0 if is_basic else 0.25,
        norm_layer=BatchNormAct2d,
        conv_layer=create_conv2d,
    )
    network.stem = nn.Conv2d(3, stem, 3, padding=1, bias=False)
    return network


@pytest.mark.peers
def test_pre_activation_bottlenecks():
    torch.manual_seed(0)
    ours = resnet(INPUTS, depth=50, block="pre-activation", width=0.25)
    theirs = built_by_timm([3, 4, 6, 3], (64, 128, 256, 512), 16, is_basic=False)
    same_outputs(ours, theirs)


@pytest.mark.peers
def test_wide_residual_network():
    torch.manual_seed(0)
    ours = wide_resnet(INPUTS, depth=16, width=2)
    theirs = built_by_timm([2, 2, 2], (32, 64, 128), 16, is_basic=True)
    same_outputs(ours, theirs)
