import pytest
import torch
from torch import nn

from quintain.models.blocks import (
    Place,
    Plain,
    PreActivation,
    Residual,
    ZeroPadding,
    basic,
    bottleneck,
    early_bottleneck,
)


def ready(block):
    """In evaluation mode, with statistics that have something to do."""
    torch.manual_seed(0)
    for one in block.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.running_mean.normal_()
            one.running_var.uniform_(0.5, 1.5)
    return block.eval()


def test_zero_padding_shortcut_skips_pixels_and_adds_zeros():
    x = torch.rand(2, 3, 7, 8)
    out = ZeroPadding(3, 5, 2)(x)
    assert out.shape == (2, 5, 4, 4)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert not out[:, 3:].any()


@pytest.mark.parametrize("kind", [Residual, Plain, PreActivation])
@pytest.mark.parametrize("layout", [basic, bottleneck, early_bottleneck])
@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("side", [8, 9])
def test_every_block_halves_the_grid_and_widens(kind, layout, projected, side):
    block = kind(Place(3, layout(4, 2), projected))
    outputs = 4 if layout is basic else 16
    out = block(torch.rand(2, 3, side, side))
    assert out.shape == (2, outputs, (side + 1) // 2, (side + 1) // 2)


def test_shortcut_of_pre_activation_carries_the_input_as_it_is():
    block = ready(PreActivation(Place(4, basic(4, 1), projected=True)))
    x = torch.randn(2, 4, 5, 5)
    expected = x + block.residual(block.activation(x))
    assert torch.equal(block(x), expected)
    assert (block(x) < 0).any(), "nothing follows the sum"
    assert isinstance(block.shortcut, nn.Identity)


def test_shortcut_of_pre_activation_starts_after_the_activation_where_the_shape_changes():
    block = ready(PreActivation(Place(4, basic(6, 2), projected=True)))
    x = torch.randn(2, 4, 6, 6)
    active = block.activation(x)
    assert torch.equal(block(x), block.shortcut(active) + block.residual(active))
    assert [type(one) for one in block.shortcut] == [nn.Conv2d]


def test_first_block_of_pre_activation_leaves_activation_to_the_stem():
    block = ready(PreActivation(Place(4, basic(4, 1), projected=True, first=True)))
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x + block.residual(x))


def test_dropout_comes_before_the_last_convolution_only():
    block = PreActivation(Place(4, basic(4, 1), projected=True), dropout=0.5)
    kinds = [type(one).__name__ for one in block.residual]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "Conv2d"]
    x = torch.randn(8, 4, 5, 5)
    assert not torch.equal(block(x), block(x))
    assert torch.equal(block.eval()(x), block(x))
