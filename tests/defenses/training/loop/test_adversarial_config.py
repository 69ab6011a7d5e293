"""What every adversarially trained defense does, whatever its method."""

import pytest
import torch
from builders import linear
from torch import nn

from quintain.bench.api.errors import BadParameter
from quintain.bench.api.registry import build
from quintain.defenses.none import Undefended
from quintain.defenses.training.adversarial_training import AdversarialTraining
from quintain.defenses.training.free import Free
from quintain.defenses.training.mart import MART
from quintain.defenses.training.trades import TRADES

DEFENSES = [AdversarialTraining, Free, TRADES, MART]
QUICK = {"epochs": 8, "batch_size": 50, "augmentation": "none", "learning_rate": 1.0}


def robust(model, x, y, epsilon):
    """Exact robust accuracy of a linear network of two classes: margin against the dual norm."""
    weight = (model[1].weight[1] - model[1].weight[0]).detach()
    bias = (model[1].bias[1] - model[1].bias[0]).detach()
    margin = (2.0 * y - 1.0) * (x.flatten(1) @ weight + bias)
    return (margin > epsilon * weight.abs().sum()).double().mean().item()


@pytest.mark.parametrize("kind", DEFENSES)
@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_it_withstands_what_ordinary_training_does_not(kind, gamma, training, two_cues):
    x, y = two_cues
    plain = Undefended(**QUICK).fit(linear(), training(x, y)).model
    given = {"replays": 4} if kind is Free else {}
    defense = kind(**QUICK, **given, weight_perturbation=gamma)
    trained = defense.fit(linear(), training(x, y, epsilon=0.1))
    stated_truly = ((x[:, 0, 0, 0] > 0.5).long() == y).double().mean().item()
    assert robust(plain, x, y, 0.1) < 0.2
    assert robust(trained.model, x, y, 0.1) == pytest.approx(stated_truly, abs=0.03)
    assert robust(plain, x, y, 0.0) > robust(trained.model, x, y, 0.0)
    assert trained.flags == ()
    for one in trained.history:
        assert one["robust_validation_accuracy"] <= one["fgsm_validation_accuracy"]


def test_beta_trades_accuracy_for_robustness(training, two_cues):
    x, y = two_cues

    def accuracies(beta):
        defense = TRADES(**QUICK, beta=beta, validation_share=0.0)
        model = defense.fit(linear(), training(x, y, epsilon=0.1)).model
        return robust(model, x, y, 0.0), robust(model, x, y, 0.1)

    low, high = accuracies(0.0), accuracies(6.0)
    assert low[0] > high[0] + 0.03
    assert low[1] < high[1] - 0.5


@pytest.mark.parametrize("kind", DEFENSES)
def test_a_network_that_blinds_fgsm_ends_training_with_a_flag(kind, training, two_cues):
    """In evaluation mode the loss rises to 3/4 of the way to a ball's corner and falls from there.

    One long step lands in a corner, where the answer is that at the image; PGD stops before it.
    """
    x, y = two_cues
    x, epsilon = (x * 5).round() / 5, 0.05  # images on a coarse grid tell where the ball is

    class Blinding(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, at):
            if self.training:
                return self.inner(at)
            clean = (at.detach() * 5).round() / 5
            way = (at - clean).abs().flatten(1).mean(1) / epsilon
            height = torch.where(way < 0.75, way / 0.75, (1 - way) / 0.25)
            answer = nn.functional.one_hot(self.inner(clean).argmax(1), 2)
            return answer * (1 - 4 * height)[:, None]

    trained = kind(**QUICK, epsilon=epsilon).fit(Blinding(), training(x, y))
    assert len(trained.history) == 1
    assert trained.history[0]["fgsm_validation_accuracy"] > 0.8
    assert trained.history[0]["robust_validation_accuracy"] < 0.1
    assert trained.flags[0].startswith("catastrophic overfitting in epoch 1: ")


@pytest.mark.parametrize("kind", DEFENSES)
def test_epsilon_comes_from_the_defense_or_else_from_the_threat(kind, training, two_cues):
    def last(named, **threat):
        return (
            kind(epochs=1, batch_size=300, **named)
            .fit(linear(), training(*two_cues, **threat))
            .history[-1]
        )

    assert last({"epsilon": "1/10"}) == last({}, epsilon=0.1)
    assert last({"epsilon": 0.1}, epsilon=0.3) == last({}, epsilon=0.1)
    assert last({}, epsilon=0.3) != last({}, epsilon=0.1)
    assert last({"norm": "L2"}, epsilon=0.3) == last({}, epsilon=0.3, norm="L2")
    with pytest.raises(BadParameter, match="needs an epsilon"):
        last({})


@pytest.mark.parametrize("kind", [AdversarialTraining, Free, TRADES])
def test_certain_probabilities_train_as_classes_do(kind, training, two_cues):
    x, y = two_cues
    certain = nn.functional.one_hot(y, 2).float()
    defense = kind(epochs=1, batch_size=100, epsilon=0.05)
    one, other = (defense.fit(linear(), training(x, given)).model for given in (y, certain))
    torch.testing.assert_close(one[1].weight, other[1].weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", DEFENSES)
@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"epsilon": "8/0"}, "epsilon '8/0' is not a number"),
        ({"norm": "L3"}, "norm = 'L3' is not one of Linf, L2, L1"),
        ({"step_size": 0.0}, "step_size = 0.0 must be positive"),
        ({"validation_steps": 0}, "validation_steps = 0 must be 1 or more"),
        ({"warmup_epochs": -1}, "warmup_epochs = -1 must be 0 or more"),
        ({"epochs": 3, "warmup_epochs": 3}, "warmup_epochs = 3 must be below epochs = 3"),
        ({"weight_perturbation": 1.0}, "weight_perturbation = 1.0 must be at least 0 and below 1"),
        ({"weight_perturbation": -0.1}, "weight_perturbation = -0.1 must be at least 0 and below"),
        (
            {"epochs": 3, "weight_perturbation_warmup": 9},
            "weight_perturbation_warmup = 9 must be below epochs = 3",
        ),
        ({"epochs": 0}, "epochs = 0 must be 1 or more"),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_name(kind, given, line):
    with pytest.raises(BadParameter) as caught:
        kind(**given)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "given", "line"),
    [
        (Free, {"replays": 0}, "replays = 0 must be 1 or more"),
        (TRADES, {"beta": -1.0}, "beta = -1.0 must be 0 or positive, and finite"),
        (TRADES, {"steps": 0}, "steps = 0 must be 1 or more"),
        (MART, {"beta": float("inf")}, "beta = inf must be 0 or positive, and finite"),
        (MART, {"label_smoothing": 0.1}, "label_smoothing = 0.1 must be 0: mart needs a class"),
    ],
)
def test_each_refuses_its_own(kind, given, line):
    with pytest.raises(BadParameter) as caught:
        kind(**given)
    assert line in str(caught.value)


def test_suites_reach_them_by_flat_keys():
    assert build("defenses", {"name": "trades", "beta": 3.0, "epochs": 4}) == TRADES(
        beta=3.0, epochs=4
    )
    assert build("defenses", {"name": "free", "replays": 4}) == Free(replays=4)
    given = {"name": "mart", "weight_perturbation": 0.01, "epsilon": "8/255"}
    assert build("defenses", given) == MART(weight_perturbation=0.01, epsilon="8/255")
