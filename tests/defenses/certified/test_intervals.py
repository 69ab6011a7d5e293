"""Interval bounds: sound, exact where they can be, and for every network of ours."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from builders import random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadParameter
from quintain.defenses.certified.intervals import Interval
from quintain.defenses.certified.propagation import (
    FLOAT32,
    around,
    margins,
    propagate,
    surely_around,
)
from quintain.models.alexnet import alexnet
from quintain.models.googlenet import googlenet
from quintain.models.resnet import resnet
from quintain.models.small_cnn import small_cnn

SPEC = InputSpec((3, 32, 32), 5, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
NETWORKS = {
    "small-cnn": lambda: small_cnn(SPEC, width=0.1),
    "resnet 8": lambda: resnet(SPEC, depth=8),
    "resnet 18": lambda: resnet(SPEC, depth=18, width=0.1),
    "resnet 50": lambda: resnet(SPEC, depth=50, width=0.1, stem="imagenet"),
    "googlenet": lambda: googlenet(SPEC, width=0.1),
    "alexnet": lambda: alexnet(SPEC, width=0.05, local_response=False),
    "alexnet of two": lambda: alexnet(SPEC, width=0.05, local_response=False, groups=2),
}


def lively(network, seed=0):
    """Statistics of batch normalisation as after training, of both signs."""
    generator = torch.Generator().manual_seed(seed)
    for one in network.modules():
        if isinstance(one, nn.BatchNorm2d):
            with torch.no_grad():
                one.running_mean.copy_(torch.randn(one.num_features, generator=generator) / 3)
                one.running_var.copy_(0.5 + torch.rand(one.num_features, generator=generator))
                one.weight.copy_(torch.randn(one.num_features, generator=generator))
    return network.eval()


def mixed(seed):
    """A network of every kind of operation that there is a rule for."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 6, 3, padding=1, stride=2)
            self.norm = nn.BatchNorm2d(6)
            self.branch = nn.Conv2d(6, 6, 3, padding=1, groups=2, bias=False)
            self.drop = nn.Dropout(0.5)
            self.pool = nn.MaxPool2d(3, 2, 1)
            self.head = nn.Linear(24, 3)
            self.register_buffer("mean", torch.tensor([0.3, 0.6]).reshape(1, 2, 1, 1))

        def forward(self, x):
            x = self.norm(self.conv((x - self.mean) / 0.25))
            x = F.relu(x + self.branch(F.relu(x)))
            skip = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 6))
            both = torch.cat([self.pool(x), -0.5 * F.avg_pool2d(x, 2)], dim=1) - skip
            pooled = F.adaptive_avg_pool2d(both, 1).flatten(1)
            means = 1.0 - both.mean(dim=(2, 3))
            return self.head(self.drop(torch.cat([pooled, means], dim=1)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return lively(Mixed(), seed)


def corners(x, epsilon, generator):
    """A point of each image's box, and of [0, 1]: half of them corners."""
    move = 2 * torch.rand(x.shape, generator=generator) - 1
    move = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, move.sign(), move)
    at = (x + epsilon[:, None, None, None] * move).clamp(0, 1)
    inside = (at.double() - x.double()).abs() <= epsilon.double()[:, None, None, None]
    return torch.where(inside, at, x)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1e-7, 1e-4, 0.01, 0.3]))
@settings(max_examples=25, deadline=None)
def test_no_point_of_the_box_leaves_the_bounds(seed, epsilon):
    generator = torch.Generator().manual_seed(seed)
    network = mixed(seed)
    x = torch.rand(24, 2, 8, 8, generator=generator)
    wide = torch.full((24,), epsilon)
    with torch.no_grad():
        bounds = propagate(network, surely_around(x, wide))
        for _ in range(3):
            logits = network(corners(x, wide, generator))
            assert (bounds.lower <= logits).all()
            assert (logits <= bounds.upper).all()
            y = logits.argmax(1)
            margin = logits.gather(1, y[:, None]) - logits
            assert (margins(bounds, y) <= margin.double() + 1e-6).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_ours_has_sound_bounds(name):
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = lively(NETWORKS[name]())
    x = torch.rand(8, 3, 32, 32, generator=generator)
    wide = torch.tensor([0, 1e-6, 1e-5, 1e-4, 0.001, 0.01, 0.05, 0.1])
    with torch.no_grad():
        bounds = propagate(network, surely_around(x, wide))
        for _ in range(2):
            logits = network(corners(x, wide, generator))
            assert ((bounds.lower <= logits) & (logits <= bounds.upper)).all()
    assert bounds.upper[0].isfinite().all()


def test_adversarial_points_stay_within_the_bounds():
    """PGD on a logit is a sharper test than random points: it nearly reaches the bound."""
    network = mixed(5)
    x = random_images(16, 2, 8, 8, seed=2)
    wide = torch.full((16,), 0.02)
    with torch.no_grad():
        upper = propagate(network, surely_around(x, wide)).upper[:, 0]
    at, ball = x.clone(), (x - 0.02, x + 0.02)
    for _ in range(20):
        at.requires_grad_()
        (gradient,) = torch.autograd.grad(network(at)[:, 0].sum(), at)
        at = (at.detach() + 0.004 * gradient.sign()).clamp(*ball).clamp(0, 1)
    with torch.no_grad():
        reached, clean = network(at)[:, 0], network(x)[:, 0]
    assert (reached <= upper).all()
    assert ((reached - clean) > 0.05 * (upper - clean)).all()


def test_of_a_linear_network_the_leads_are_exact():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x = 0.3 + 0.4 * torch.rand(10, 1, 4, 4)
    y = torch.arange(10) % 3
    weight, logits = network[1].weight.detach().double(), network(x).detach().double()
    bounds = margins(propagate(network, around(x, torch.full((10,), 0.05))), y).detach()
    for row in range(10):
        for other in range(3):
            between = weight[y[row]] - weight[other]
            wanted = logits[row, y[row]] - logits[row, other] - 0.05 * between.abs().sum()
            assert bounds[row, other] == pytest.approx(wanted.item(), abs=1e-5)
    apart = propagate(network, around(x, torch.full((10,), 0.05)))
    plain = Interval(apart.lower, apart.upper)  # without what the last layer was given
    assert (margins(plain, y) <= bounds + 1e-6).all()
    assert (margins(plain, y) < bounds - 0.01).any()


def test_bounds_leave_room_for_the_networks_own_rounding():
    """Sums that cancel: the exact bounds of a point are not where float32 arithmetic ends up."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4096, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        network[1].weight.copy_(1000 * torch.randn(8, 4096))
    x = torch.rand(32, 1, 64, 64)
    with torch.no_grad():
        logits = network(x).double()
        exact = Interval(x.double(), x.double())
        bounds = propagate(network, exact)
        assert not ((bounds.lower <= logits) & (logits <= bounds.upper)).all()
        bounds = propagate(network, Interval(x.double(), x.double(), FLOAT32))
        assert ((bounds.lower <= logits) & (logits <= bounds.upper)).all()


def test_the_box_is_in_the_cube_and_holds_the_whole_ball():
    x = torch.tensor([0.0, 0.1, 0.7, 1.0]).reshape(1, 1, 2, 2)
    box = surely_around(x, torch.tensor([0.1]))
    assert box.lower.min() == 0
    assert box.upper.max() == 1
    assert (box.lower.flatten()[2] <= x.flatten()[2].double() - np.float64(np.float32(0.1))).all()
    assert box.upper.flatten()[0] >= 0.1


def test_gradients_flow_to_the_weights():
    network = small_cnn(SPEC, width=0.1)
    x = torch.rand(4, 3, 32, 32)
    margins(propagate(network, around(x, torch.full((4,), 0.01))), torch.arange(4)).sum().backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in network.parameters())


class Strange(nn.Module):
    def forward(self, x):
        return torch.sigmoid(x)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nn.Sequential(nn.Flatten(), Strange()), r"layer '1' \(Strange\): 'sigmoid' of intervals"),
        (alexnet(SPEC, width=0.05), r"layer 'features.norm1' \(LocalResponseNorm\)"),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train(), "layer '1' .*statistics"),
        (nn.Sequential(nn.Dropout()).train(), r"layer '0' \(Dropout\): dropout in training mode"),
        (nn.Sequential(nn.Softplus()), r"layer '0' \(Softplus\)"),
    ],
)
def test_a_layer_without_a_rule_is_named(network, says):
    x = torch.rand(2, 3, 32, 32)
    with pytest.raises(BadParameter, match=says):
        propagate(network, around(x, torch.full((2,), 0.1)))
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in network.modules())


class Convolutional(nn.Module):
    """Of the layers that the toolbox knows; it flattens by itself."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu1 = nn.Conv2d(1, 4, 3, stride=2), nn.ReLU()
        self.fc1, self.relu2, self.fc2 = nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 3)

    def forward(self, x):
        return self.fc2(self.relu2(self.fc1(self.relu1(self.conv(x)).flatten(1))))


@pytest.mark.peers
@pytest.mark.filterwarnings(r"ignore:\s*This estimator does not support")
def test_bounds_are_those_of_the_adversarial_robustness_toolbox():
    from art.estimators.certification.interval import PyTorchIBPClassifier

    torch.manual_seed(0)
    network = Convolutional().eval()
    x = torch.rand(6, 1, 8, 8)
    theirs = PyTorchIBPClassifier(
        network, nn.CrossEntropyLoss(), (1, 8, 8), 3, clip_values=(0.0, 1.0), device_type="cpu"
    )
    lower, upper = (x - 0.03).clamp(0, 1), (x + 0.03).clamp(0, 1)
    wanted = theirs.predict_intervals(torch.stack([lower, upper], dim=1).numpy(), is_interval=True)
    with torch.no_grad():
        bounds = propagate(network, around(x, torch.full((6,), 0.03)))
    np.testing.assert_allclose(wanted[:, 0], bounds.lower, atol=1e-5)
    np.testing.assert_allclose(wanted[:, 1], bounds.upper, atol=1e-5)
