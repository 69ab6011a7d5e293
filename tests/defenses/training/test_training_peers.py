"""A step of training beside the Adversarial Robustness Toolbox, on the same adversarial images."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from quintain.defenses.training.adversarial_training import AdversarialTraining
from quintain.defenses.training.loop.objective import Batch
from quintain.defenses.training.trades import TRADES
from quintain.defenses.training.weight_perturbation import WeightPerturbation

pytestmark = pytest.mark.peers


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip


def theirs(mode, gamma, x, x_adv, y, rate):
    """The weights after a step of ART's trainer, with an attack that answers x_adv."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks.evasion import ProjectedGradientDescent
        from art.defences.trainer.adversarial_trainer_awp_pytorch import (
            AdversarialTrainerAWPPyTorch,
        )
        from art.estimators.classification import PyTorchClassifier

    def classifier():
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), rate)
        return PyTorchClassifier(
            model, nn.CrossEntropyLoss(), (1, 4, 4), 3, optimizer, clip_values=(0, 1),
            device_type="cpu",
        )  # fmt: skip

    victim = classifier()
    attack = ProjectedGradientDescent(victim, verbose=False)
    attack.generate = lambda *given, **named: x_adv.numpy()
    trainer = AdversarialTrainerAWPPyTorch(victim, classifier(), attack, mode, gamma, 6.0, 0)
    trainer._apply_wp = gamma > 0
    labels = np.eye(3, dtype=np.float32)[y.numpy()]
    trainer._batch_process(x.numpy(), labels)
    return [one.detach() for one in victim.model.parameters()]


@pytest.mark.parametrize("gamma", [0.0, 0.1])
@pytest.mark.parametrize("mode", ["PGD", "TRADES"])
def test_a_step_moves_the_weights_as_art_does(mode, gamma):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(12, 1, 4, 4, generator=generator), torch.arange(12) % 3
    x_adv = (x + 0.1 * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, 1)
    defense = AdversarialTraining() if mode == "PGD" else TRADES(beta=6.0)
    batch = Batch(x, y, torch.arange(12), 0.0, generator)
    model, rate = network(), 0.5
    before = copy.deepcopy(model)
    found = WeightPerturbation(gamma).worst(
        model, 0.0, lambda forward: defense.loss(forward, batch, x_adv)
    )
    found.loss.backward()
    torch.optim.SGD(model.parameters(), rate).step()
    reference = theirs(mode, gamma, x, x_adv, y, rate)
    for one, other, old in zip(model.parameters(), reference, before.parameters(), strict=True):
        assert not torch.equal(old, other)
        torch.testing.assert_close(one.detach(), other, rtol=1e-4, atol=1e-6)
