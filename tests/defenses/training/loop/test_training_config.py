import pytest

from quintain.bench.api.errors import BadParameter
from quintain.bench.api.registry import build
from quintain.defenses.none import Undefended
from quintain.defenses.training.adversarial_training import AdversarialTraining


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"epochs": 0}, "epochs = 0 must be 1 or more"),
        ({"batch_size": -3}, "batch_size = -3 must be 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0 must be positive and finite"),
        ({"learning_rate": float("nan")}, "learning_rate = nan must be positive and finite"),
        ({"gradient_clip": -1.0}, "gradient_clip = -1.0 must be positive and finite"),
        ({"momentum": 1.0}, "momentum = 1.0 must be at least 0 and below 1"),
        ({"validation_share": 1.0}, "validation_share = 1.0 must be at least 0 and below 1"),
        ({"weight_decay": -1.0}, "weight_decay = -1.0 must be 0 or positive"),
        ({"shift": -1}, "shift = -1 must be 0 or more"),
        ({"schedule": "one-cycel"}, "did you mean 'one-cycle'?"),
        ({"schedule": "cosin"}, "step, plateau, constant; did you mean 'cosine'?"),
        ({"milestones": (0.75, 0.5)}, "milestones = (0.75, 0.5) must be rising, above 0 and below"),
        ({"milestones": (30.0,)}, "milestones = (30.0,) must be rising, above 0 and below 1"),
        ({"milestones": ()}, "milestones = () must be rising"),
        ({"divisor": 1.0}, "divisor = 1.0 must be above 1 and finite"),
        ({"rate_warmup": 0.1}, "rate_warmup = 0.1 with schedule 'one-cycle': only 'cosine' takes"),
        ({"rate_warmup": 1.0}, "rate_warmup = 1.0 must be at least 0 and below 1"),
        ({"colour": -0.1}, "colour = -0.1 must be 0 or positive"),
        ({"ema": 1.0}, "ema = 1.0 must be above 0 and below 1"),
        ({"ema": 0.0}, "ema = 0.0 must be above 0 and below 1"),
        ({"precision": "bf16"}, "'bf16' is not one of float32, bfloat16, float16; did you mean"),
        ({"augmentation": "flip"}, "is not one of none, shift, shift-flip"),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_name(given, line):
    with pytest.raises(BadParameter) as caught:
        Undefended(**given)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"epsilon": "8/0"}, "epsilon '8/0' is not a number"),
        ({"epsilon": -0.1}, "must be positive"),
        ({"method": "pdg"}, "did you mean 'pgd'?"),
        ({"norm": "L3"}, "norm = 'L3' is not one of Linf, L2, L1"),
        ({"method": "fgsm", "steps": 3}, "steps = 3 with method 'fgsm', which takes 1"),
        ({"steps": 0}, "steps = 0 must be 1 or more"),
        ({"step_size": 0.0}, "step_size = 0.0 must be positive"),
        ({"epochs": 3, "warmup_epochs": 3}, "warmup_epochs = 3 must be below epochs = 3"),
        ({"epochs": 0}, "epochs = 0 must be 1 or more"),
    ],
)
def test_adversarial_training_refuses_too(given, line):
    with pytest.raises(BadParameter) as caught:
        AdversarialTraining(**given)
    assert line in str(caught.value)


def test_suites_reach_every_parameter_by_a_flat_key():
    spec = {"name": "adversarial-training", "epsilon": "8/255", "steps": 5, "epochs": 4}
    assert build("defenses", spec) == AdversarialTraining(epsilon="8/255", steps=5, epochs=4)
    assert build("defenses", {"name": "none", "epochs": 4}) == Undefended(epochs=4)
