from dataclasses import replace

import pytest
import torch
from builders import linear
from torch import nn

from quintain.bench.api import registry
from quintain.bench.api.defense import Trained
from quintain.bench.api.errors import BadParameter
from quintain.defenses.certified.randomised_smoothing import RandomisedSmoothing
from quintain.defenses.certified.smoothed_classifier import Smoothed
from quintain.defenses.none import Undefended
from quintain.defenses.training.gaussian_noise import GaussianNoise

QUICK = {"epochs": 8, "batch_size": 50, "augmentation": "none", "learning_rate": 2.0}


def test_every_image_is_trained_and_validated_on_with_new_noise(training):
    """Spied on through the inputs, of which every pixel is 0.5 without noise."""
    x, y = torch.full((400, 1, 4, 4), 0.5), torch.arange(400) % 2
    seen = {True: [], False: []}

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, at):
            seen[self.training].append(at.detach() - 0.5)
            return self.inner(at)

    trained = GaussianNoise(epochs=2, sigma=0.3).fit(Spy(), training(x, y))
    noise = torch.cat(seen[True])
    assert noise.shape == (720, 1, 4, 4)
    assert len(noise.unique()) > 11_000  # no number twice, floats apart
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)
    assert noise.min() < -0.5  # not clipped to [0, 1]
    clean, noisy = seen[False][:2]
    assert not clean.any()
    assert noisy.std().item() == pytest.approx(0.3, rel=0.1)
    assert "robust_validation_accuracy" in trained.history[-1]


def test_noise_needs_a_spread(training, two_cues):
    x, y = two_cues
    with pytest.raises(BadParameter, match="needs a sigma"):
        GaussianNoise().fit(linear(), training(x, y))


def test_the_base_is_trained_with_the_noise_of_the_smoothing(training, two_cues):
    x, y = two_cues
    defense = RandomisedSmoothing(sigma=0.2, base=GaussianNoise(**QUICK))
    assert defense.base.sigma == 0.2
    assert RandomisedSmoothing(sigma=0.2, base=GaussianNoise(sigma=0.5)).base.sigma == 0.5
    trained = defense.fit(linear(), training(x, y))
    assert isinstance(trained.model, Smoothed)
    alone = GaussianNoise(**QUICK, sigma=0.2).fit(linear(), training(x, y))
    assert torch.equal(trained.model.network[1].weight, alone.model[1].weight)
    assert trained.history == alone.history


def test_the_base_is_obtained_where_networks_are_shared(training, two_cues):
    asked = []

    def obtain(defense, **named):
        asked.append(defense)
        return Trained(linear(), flags=("so-so",))

    job = replace(training(*two_cues), obtain=obtain)
    trained = RandomisedSmoothing(sigma=0.2).fit(linear(), job)
    assert asked == [GaussianNoise(sigma=0.2)]
    assert trained.flags == ("so-so",)


def test_it_can_be_made_again_for_the_cache():
    defense = RandomisedSmoothing(sigma=0.2, base=RandomisedSmoothing(sigma=0.1))
    again = defense.wrap(linear())
    assert (again.sigma, again.network.sigma) == (0.2, 0.1)
    assert isinstance(again.network.network, nn.Sequential)


def test_a_suite_names_it_with_its_base():
    spec = {"name": "randomised-smoothing", "sigma": 0.5, "n": 2000, "alpha": 0.01}
    built = registry.build("defenses", {**spec, "base": {"name": "none", "epochs": 3}})
    assert built == RandomisedSmoothing(sigma=0.5, n=2000, alpha=0.01, base=Undefended(epochs=3))
    assert registry.build("defenses", spec).base == GaussianNoise(sigma=0.5)
    assert built.certifies == "L2"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sigma": 0.0}, "sigma = 0.0 must be positive and finite"),
        ({"alpha": 0.5}, "alpha = 0.5 must be above 0 and below 0.5"),
        ({"n": 1}, "n = 1 must be 2 or more"),
        ({"n0": 0}, "n0 = 0 must be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(given, says):
    with pytest.raises(BadParameter, match=says):
        RandomisedSmoothing(**given)
    with pytest.raises(BadParameter, match="sigma = -1 must be positive"):
        GaussianNoise(sigma=-1)
