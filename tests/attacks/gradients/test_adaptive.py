"""Gradients against defenses that have none, or another one each time."""

from dataclasses import dataclass

import pytest
import torch
from builders import Iterate, random_images
from torch import nn
from torch.nn import functional

from quintain.attacks.gradients.autograd import Autograd
from quintain.attacks.gradients.bpda import BPDA, Surrogates
from quintain.attacks.gradients.eot import EOT
from quintain.attacks.gradients.smoothed import Smoothed, Softened
from quintain.attacks.parts.losses import Margin
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.rng import noise
from quintain.bench.victim.model import Network

CPU = torch.device("cpu")


class Rounded(nn.Module):
    """Few grey levels: flat almost everywhere."""

    differentiable = False

    def forward(self, x):
        return (x * 8).round() / 8


class Halved(nn.Module):
    """Every other row and column; its surrogate is an average."""

    differentiable = False

    def forward(self, x):
        return x[..., ::2, ::2].round()

    def surrogate(self, x):
        return functional.avg_pool2d(x, 2)


class Shifted(nn.Module):
    """The image, with strong noise."""

    stochastic = True

    def forward(self, x):
        return x + 0.3 * noise(x).normal(x.shape[1:], "shift")


def robust(module, digits, attack, epsilon=0.15, count=60, **named):
    x, y = digits.images[:count], digits.labels[:count]
    result = evaluate(module, x, y, attack, epsilons=[epsilon], search="exhaustive", **named)
    return result.curve["attack_success_rate"].item()


def test_bpda_breaks_what_rounding_hides(digits):
    module = nn.Sequential(Rounded(), digits.module)
    plain, around = (PGD(steps=20, loss=Margin(), gradient=one) for one in (Autograd(), BPDA()))
    assert robust(module, digits, plain, adaptive=False) < 0.1
    assert robust(module, digits, around, adaptive=False) > 0.6


def test_bpda_of_a_model_with_gradients_is_its_gradient(digits):
    network = Network(digits.module, CPU, 64)
    x = digits.images[:5]
    exact = network.gradient(x, lambda z: z[:, 3])
    through = network.gradient(x, lambda z: z[:, 3], Surrogates())
    assert torch.equal(exact.gradient, through.gradient)


def test_a_declared_surrogate_gives_the_derivative_and_not_the_value():
    head = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    module = nn.Sequential(Halved(), head)
    x = random_images(3, 1, 4, 4)
    answer = Network(module, CPU, 16).gradient(x, lambda z: z[:, 0], Surrogates())
    assert torch.equal(answer.logits, head(x[..., ::2, ::2].round()))
    weight = head[1].weight[0].reshape(1, 1, 2, 2)
    expected = functional.interpolate(weight, scale_factor=2) / 4
    assert torch.allclose(answer.gradient, expected.expand(3, -1, -1, -1))
    assert not any(one._forward_hooks for one in module.modules())


def test_a_surrogate_of_another_shape_is_refused():
    module = nn.Sequential(Halved(), nn.Flatten(), nn.Linear(4, 2))
    module[0].surrogate = lambda x: x
    with pytest.raises(BadParameter, match=r"Halved turns .* give it a method surrogate"):
        Network(module, CPU, 16).gradient(torch.rand(1, 1, 4, 4), lambda z: z[:, 0], Surrogates())


@dataclass(frozen=True)
class Recording:
    """Asks a source for the gradient at the clean image, and keeps it."""

    source: object
    kept: list
    access: str = "white-box"
    steps: int = 1

    def start(self, problem):
        return Iterate(problem.x)

    def step(self, problem, state):
        self.kept.append(self.source(problem, problem.x, Margin()))
        return state


def test_eot_asks_as_often_as_it_says_and_comes_nearer_to_the_mean(digits):
    module = nn.Sequential(Shifted(), digits.module)
    x, y = digits.images[:30], digits.labels[:30]
    gradients = {}
    for samples in (1, 8, 150):
        attack = Recording(EOT(samples=samples), [])
        settings = {"epsilons": [1e-6], "search": "exhaustive"}
        records = evaluate(module, x, y, attack, **settings).records
        assert set(records["backward"][records["under_attack"]]) == {samples}
        gradients[samples] = torch.cat(attack.kept).flatten(1)
    one, some = (functional.cosine_similarity(gradients[n], gradients[150]).mean() for n in (1, 8))
    assert one < 0.75
    assert some > one + 0.1


def test_the_mean_over_draws_is_the_gradient_of_the_mean(digits):
    plain, mean = PGD(steps=3), PGD(steps=3, gradient=EOT(samples=4))
    x, y = digits.images[:20], digits.labels[:20]
    one, other = (
        evaluate(digits.module, x, y, a, epsilons=[0.1], precision="float32") for a in (plain, mean)
    )
    assert one.records["broken"].tolist() == other.records["broken"].tolist()


class Steep(nn.Module):
    """A unit that is shut or full almost everywhere, made of ReLUs; class 1 where it is full."""

    def forward(self, x):
        unit = 40.0 * (x.flatten(1).mean(dim=1, keepdim=True) - 0.62)
        unit = 1.0 - functional.relu(1.0 - functional.relu(unit))
        return torch.cat([0.5 - unit, unit - 0.5], dim=1)


def test_smoothing_sees_beyond_the_flat():
    x, y = torch.full((8, 1, 3, 3), 0.5), torch.zeros(8, dtype=torch.int64)
    settings = {"epsilons": [0.2], "search": "exhaustive"}
    plain = evaluate(Steep(), x, y, PGD(steps=50, random_start=False, loss=Margin()), **settings)
    smooth = evaluate(Steep(), x, y, "pgd-smoothed", **settings)
    assert plain.curve["robust_accuracy"].item() == 1
    assert "vanishing-gradients:100%" in plain.flags
    assert smooth.curve["robust_accuracy"].item() == 0


class Corners(nn.Module):
    """All that is rounded off, called as modules and as functions."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.rectifier = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.pool(self.rectifier(self.convolution(x)))
        x = functional.max_pool2d(torch.relu(x), 2)
        return self.head(x.relu().flatten(1))


def test_a_cold_surrogate_gradient_shows_the_network_itself_and_a_warm_one_does_not():
    torch.manual_seed(0)
    network = Network(Corners().requires_grad_(False), CPU, 16)
    x = torch.rand(20, 1, 8, 8)
    real = network.logits(x)
    cold, warm = (
        network.gradient(x, lambda z: z[:, 0], Softened(), torch.full((20,), tau)).logits
        for tau in (1e-6, 1.0)
    )
    assert torch.allclose(cold, real, atol=1e-3)
    assert (warm - real).abs().amax() > 0.05
    mixed = torch.cat([torch.full((10,), 1e-6), torch.full((10,), 1.0)])
    both = network.gradient(x, lambda z: z[:, 0], Softened(), mixed).logits
    assert torch.allclose(both, torch.cat([cold[:10], warm[10:]]), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: EOT(samples=0), "samples must be at least 1"),
        (lambda: Smoothed(temperature=0.0), "temperature must be positive"),
        (lambda: Smoothed(decay=1.2), "decay must be above 0"),
        (lambda: Smoothed(check_every=0), "check_every must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(BadParameter, match=said):
        make()
