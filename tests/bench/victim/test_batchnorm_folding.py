"""Folding: right wherever it is done, and not done where the graph does not show that it is."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from quintain.bench.api import registry
from quintain.bench.api.defense import InputSpec
from quintain.bench.victim.batchnorm_folding import CannotFold, fold
from quintain.bench.victim.fast_copy import Refused, Variant, make_fast_copy

FOLDED = Variant(folded=True)


class Network(nn.Module):
    """Layers by name, and a forward pass to write; all normalisations have something to do."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.head = nn.LazyLinear(5)
        self.run = forward

    def forward(self, x):
        return self.head(self.run(self, x).flatten(1))


def images(count=12):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def ready(module):
    """Lazy layers made, running statistics set to something, evaluation mode."""
    generator = torch.Generator().manual_seed(1)
    module(images())
    for one in module.modules():
        if getattr(one, "running_mean", None) is not None:
            one.running_mean.normal_(generator=generator)
            one.running_var.uniform_(0.2, 3.0, generator=generator)
        if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.affine:
            nn.init.normal_(one.weight, generator=generator)
            nn.init.normal_(one.bias, generator=generator)
    return module.eval()


def norms(module):
    return sum(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in module.modules())


def conv(inputs=3, outputs=4, **more):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **more)


def straight(net, x):
    return functional.relu(net.norm(net.conv(x)))


def shared_norm(net, x):
    return net.norm(net.other(net.norm(net.conv(x)).relu()))


def residual(net, x):
    first = net.norm(net.conv(x))
    return (first + net.norm2(net.other(first.relu()))).relu()


def before_activation(net, x):
    return net.norm2(net.other(functional.relu(net.norm(net.conv(x)))))


def weight_used_twice(net, x):
    return straight(net, x) + functional.conv2d(x, net.conv.weight, padding=1)


RIGHT = {
    "plain": (straight, {"conv": conv(), "norm": nn.BatchNorm2d(4)}),
    "no bias": (straight, {"conv": conv(bias=False), "norm": nn.BatchNorm2d(4)}),
    "groups": (straight, {"conv": conv(outputs=6, groups=3), "norm": nn.BatchNorm2d(6)}),
    "reflection": (straight, {"conv": conv(padding_mode="reflect"), "norm": nn.BatchNorm2d(4)}),
    "not affine": (straight, {"conv": conv(), "norm": nn.BatchNorm2d(4, affine=False)}),
    "linear": (
        lambda net, x: net.norm(net.conv(x.flatten(1))).relu(),
        {"conv": nn.Linear(192, 7), "norm": nn.BatchNorm1d(7)},
    ),
    "norm called twice": (
        shared_norm,
        {"conv": conv(), "norm": nn.BatchNorm2d(4), "other": conv(4, bias=False)},
    ),
    "residual": (
        residual,
        {"conv": conv(), "norm": nn.BatchNorm2d(4), "other": conv(4), "norm2": nn.BatchNorm2d(4)},
    ),
    "before activation": (
        before_activation,
        {"conv": conv(), "norm": nn.BatchNorm2d(4), "other": conv(4), "norm2": nn.BatchNorm2d(4)},
    ),
    "weight used twice": (weight_used_twice, {"conv": conv(), "norm": nn.BatchNorm2d(4)}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_folded_computes_the_same(name):
    forward, layers = RIGHT[name]
    module = ready(Network(forward, **layers))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    folded = fold(module, images())
    assert norms(module) > 0 == norms(folded)
    for x in (images(), images(5).flip(2)):
        torch.testing.assert_close(folded(x), module(x), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    make_fast_copy(module, FOLDED, images())


def two_readers(net, x):
    first = net.conv(x)
    return net.norm(first) + first


def conv_called_twice(net, x):
    return net.norm(net.conv(net.conv(x)))


def after_concatenation(net, x):
    return net.norm(torch.cat([net.conv(x), net.conv(1 - x)], dim=1))


def norm_first(net, x):
    return net.conv(functional.relu(net.norm(x)))


def by_its_data(net, x):
    return straight(net, x if x.mean() > 0 else -x)


def by_its_size(net, x):
    return straight(net, x[: len(x)])


class WithRules(nn.Conv2d):
    """A convolution that is not just one."""

    def forward(self, x):
        return super().forward(x).abs()


WRONG = {
    "two readers": (two_readers, {"conv": conv(), "norm": nn.BatchNorm2d(4)}),
    "conv called twice": (conv_called_twice, {"conv": conv(3, 3), "norm": nn.BatchNorm2d(3)}),
    "after concatenation": (after_concatenation, {"conv": conv(), "norm": nn.BatchNorm2d(8)}),
    "before the convolution": (norm_first, {"norm": nn.BatchNorm2d(3), "conv": conv()}),
    "by its data": (by_its_data, {"conv": conv(), "norm": nn.BatchNorm2d(4)}),
    "by its size": (by_its_size, {"conv": conv(), "norm": nn.BatchNorm2d(4)}),
    "no running statistics": (
        straight,
        {"conv": conv(), "norm": nn.BatchNorm2d(4, track_running_stats=False)},
    ),
    "linear on the last axis": (
        lambda net, x: net.norm(net.conv(x.flatten(2))),
        {"conv": nn.Linear(64, 3), "norm": nn.BatchNorm1d(3)},
    ),
    "subclass": (straight, {"conv": WithRules(3, 4, 3), "norm": nn.BatchNorm2d(4)}),
    "parametrised": (
        straight,
        {
            "conv": nn.utils.parametrizations.weight_norm(conv()),
            "norm": nn.BatchNorm2d(4),
        },
    ),
    "nothing to fold": (lambda net, x: net.conv(x), {"conv": conv()}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_graph_does_not_allow_is_not_folded(name):
    forward, layers = WRONG[name]
    module = ready(Network(forward, **layers))
    with pytest.raises(CannotFold):
        fold(module, images())
    unfolded = make_fast_copy(module, Variant(channels_last=True), images())
    torch.testing.assert_close(unfolded(images()), module(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_a_module_with_hooks_is_not_folded(kind):
    module = ready(Network(straight, conv=conv(), norm=nn.BatchNorm2d(4)))
    getattr(module.norm, f"register_{kind}_hook")(lambda *_: None)
    with pytest.raises(CannotFold, match="hooks"):
        fold(module, images())


def test_random_numbers_that_tracing_would_freeze_are_noticed():
    def noisy(net, x):
        return straight(net, x) + 0.1 * torch.randn(4, 8, 8)

    module = ready(Network(noisy, conv=conv(), norm=nn.BatchNorm2d(4)))
    with pytest.raises(Refused, match="logits"):
        make_fast_copy(module, FOLDED, images())


def test_a_graph_cut_on_purpose_that_tracing_would_mend_is_noticed():
    def cut(net, x):
        with torch.no_grad():
            hidden = straight(net, x).flatten(1)
        return hidden + 0.01 * x.flatten(1).mean(dim=1, keepdim=True)

    module = ready(Network(cut, conv=conv(), norm=nn.BatchNorm2d(4)))
    with pytest.raises(Refused, match="gradients"):
        make_fast_copy(module, FOLDED, images())


@pytest.mark.parametrize(
    ("spec", "left"),
    [
        ({"name": "resnet", "depth": 8, "width": 0.25}, 0),
        ({"name": "resnet", "depth": 18, "width": 0.1}, 0),
        ({"name": "resnet", "depth": 14, "width": 0.25, "block": "plain"}, 0),
        ({"name": "googlenet", "width": 0.1}, 0),
        # what reads a sum has no layer before it: one a block but the first, and the last of all
        ({"name": "resnet", "depth": 8, "width": 0.25, "block": "pre-activation"}, 3),
        ({"name": "resnet", "depth": 18, "width": 0.1, "block": "pre-activation"}, 8),
        ({"name": "wide-resnet", "depth": 16, "width": 0.5}, 6),
    ],
)
def test_every_normalisation_of_our_networks_that_can_be_is_folded(spec, left):
    inputs = InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3)
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    module = registry.bind("models", spec)(inputs).eval()
    assert norms(module) > 0
    folded = make_fast_copy(module, FOLDED, x)
    assert norms(folded) == left
    torch.testing.assert_close(folded(x), module(x), rtol=1e-4, atol=1e-5)
