import pytest
import torch

from quintain.bench.api.defense import InputSpec, Training
from quintain.bench.api.progress import Silent
from quintain.bench.api.registry import build
from quintain.bench.datasets.digits import Digits
from quintain.bench.training.networks import build_network

SMALL = {"name": "small-cnn", "width": 0.25}


def fit(epsilon, **named):
    recipe = {"batch_size": 32, "augmentation": "none", "warmup_epochs": 4, "gradient_clip": 1.0}
    defense = build("defenses", {"name": "adversarial-training", **recipe, **named})
    data = Digits().load("train")
    inputs = InputSpec(data.shape, data.n_classes, (0.3,), (0.4,))
    training = Training(data, 0, torch.device("cpu"), Silent(), "Linf", epsilon)
    return defense.fit(build_network(SMALL, inputs, 0), training)


@pytest.mark.slow
def test_real_catastrophic_overfitting_ends_training_with_a_flag():
    """FGSM with steps of twice epsilon learns to blind its own attack; PGD does not."""
    blinded = fit(0.2, method="fgsm", step_size=2.0, epochs=30, learning_rate=0.1)
    assert len(blinded.flags) == 1
    assert blinded.flags[0].startswith("catastrophic overfitting in epoch ")
    assert len(blinded.history) < 30
    last = blinded.history[-1]
    assert last["fgsm_validation_accuracy"] > 0.5
    assert last["robust_validation_accuracy"] < 0.2 * last["fgsm_validation_accuracy"]
    healthy = fit(0.2, method="pgd", steps=3, epochs=len(blinded.history) + 8, learning_rate=0.1)
    assert healthy.flags == ()
    assert healthy.history[-1]["robust_validation_accuracy"] > 0.2
