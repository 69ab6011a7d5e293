"""Certified networks that read digits, under the strongest attacks that there are.

On a trained network proof and attack meet: certified accuracy stays below the empirical one at
every radius, and no attack contradicts a certificate.
"""

import pytest
import torch

from quintain.attacks.black_box.square import Square
from quintain.attacks.gradients.eot import EOT
from quintain.attacks.white_box.apgd import apgd_ce
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.defense import InputSpec, Training
from quintain.bench.api.progress import Silent
from quintain.bench.api.rng import Draws
from quintain.bench.datasets.in_memory import channel_statistics
from quintain.bench.training.networks import build_network
from quintain.defenses.certified.interval_bounds import IntervalBounded, IntervalBounds
from quintain.defenses.certified.randomised_smoothing import RandomisedSmoothing
from quintain.defenses.none import Undefended
from quintain.defenses.training.gaussian_noise import GaussianNoise

TRAINED = {"batch_size": 50, "augmentation": "none"}
DEFENSES = {
    "none": Undefended(epochs=8, **TRAINED),
    "interval-bounds": IntervalBounds(epochs=25, ramp_epochs=12, warmup_epochs=3, **TRAINED),
    "smoothing": RandomisedSmoothing(
        sigma=0.25, n=500, base=GaussianNoise(epochs=10, **TRAINED)
    ),
    "smoothing, plain": RandomisedSmoothing(
        sigma=0.25, n=500, base=Undefended(epochs=8, **TRAINED)
    ),
}  # fmt: skip
COUNT = 40


@pytest.fixture(scope="module")
def digits():
    dataset = registry.build("datasets", "digits")
    train, test = dataset.load("train"), dataset.load("test")
    return train, test.images.read(torch.arange(COUNT)), test.labels[:COUNT]


@pytest.fixture(scope="module")
def networks(digits):
    train = digits[0]
    inputs = InputSpec(train.shape, 10, *channel_statistics(train))
    job = Training(train, 0, torch.device("cpu"), Silent(), "Linf", 0.1)
    made = {}

    def network(name):
        if name not in made:
            model = build_network({"name": "small-cnn", "width": 0.125}, inputs, 0)
            made[name] = DEFENSES[name].fit(model, job).model.eval()
        return made[name]

    return network


def certified(module, digits, epsilon):
    _, x, y = digits
    rows = torch.arange(COUNT)
    found = module.certify(x, Draws(0, rows, 0 * rows, 0 * rows), 256)
    return ((found.prediction == y) & (found.radius >= epsilon)).double().mean().item()


def check_certified(result):
    assert result.flags == ()
    proved = result.certified_accuracy["robust_accuracy"]
    assert (proved <= result.curve["robust_accuracy"]).all()
    assert not result.records["contradicts"].any()
    assert proved.iloc[0] > 0.4
    return proved


def test_interval_bounds_withstand_every_attack(networks, digits):
    _, x, y = digits
    attacks = [PGD(steps=20), apgd_ce(steps=20), Square(steps=100)]
    grid = [0.01, 0.03, 0.06, 0.1]
    result = evaluate(networks("interval-bounds"), x, y, attacks, epsilons=grid)
    proved = check_certified(result)
    assert proved.iloc[-1] > 0.25
    assert result.curve["robust_accuracy"].iloc[-1] < result.curve["clean_accuracy"].iloc[-1]


def test_training_on_bounds_certifies_much_more_than_plain_training(networks, digits):
    trained = certified(networks("interval-bounds"), digits, 0.05)
    assert certified(IntervalBounded(networks("none")), digits, 0.05) == 0.0
    assert trained > 0.4


def test_smoothing_withstands_every_attack(networks, digits):
    _, x, y = digits
    attacks = [PGD(steps=10, gradient=EOT(samples=4)), apgd_ce(steps=15), Square(steps=50)]
    grid = [0.1, 0.25, 0.5, 1.0]
    module = networks("smoothing")
    result = evaluate(module, x[:30], y[:30], attacks, norm="L2", epsilons=grid)
    check_certified(result)
    assert result.curve["robust_accuracy"].iloc[-1] < 0.6


def test_training_with_noise_certifies_more(networks, digits):
    noisy = certified(networks("smoothing"), digits, 0.4)
    assert noisy > certified(networks("smoothing, plain"), digits, 0.4) + 0.15
