import copy

import pytest
import torch
from builders import convolutional, linear
from torch import nn

from quintain.bench.api.errors import BadPlugin, CellError
from quintain.defenses.none import Undefended
from quintain.defenses.training.loop.loop import train
from quintain.defenses.training.loop.objective import Objective, classification
from quintain.defenses.training.loop.training_config import Recipe


def plain(**named):
    """One whole batch a step, nothing random, nothing kept."""
    fixed = {
        "batch_size": 1000,
        "schedule": "constant",
        "augmentation": "none",
        "validation_share": 0.0,
    }
    return Undefended(**{**fixed, **named})


def few(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(12, 1, 4, 4, generator=generator), torch.arange(12) % 3


def weights(model):
    return [one.clone() for one in model.state_dict().values()]


def same(a, b):
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


class Scripted:
    """Ordinary training that raises the alarm when the test says so."""

    warmup_epochs = 0

    def __init__(self, alarm_at=None):
        self.alarm_at = alarm_at

    def objective(self, model, batch):
        return classification(model, batch.x, batch.y)

    def adversarial(self, model, batch):
        return {}

    def alarm(self, history):
        return "scripted alarm" if len(history) == self.alarm_at else None


def test_learns_what_can_be_learnt_and_says_how_it_went(training, stripes):
    job = training(*stripes)
    trained = Undefended(epochs=5, batch_size=20, augmentation="none").fit(convolutional(), job)
    model = trained.model
    assert not model.training
    assert (model(stripes[0]).argmax(1) == stripes[1]).all()
    assert all(one.requires_grad and one.grad is None for one in model.parameters())
    assert trained.flags == ()
    assert [one["epoch"] for one in trained.history] == [1, 2, 3, 4, 5]
    assert trained.history[-1]["train_accuracy"] == 1.0
    assert trained.history[-1]["validation_accuracy"] == 1.0
    assert "robust_validation_accuracy" not in trained.history[-1]
    assert trained.epoch == 2 + max(
        (one["validation_accuracy"], -one["validation_loss"], n)
        for n, one in enumerate(trained.history, -1)
    )[2]  # fmt: skip
    steps = [done for done, _, _ in job.progress.seen]
    assert sorted(set(steps)) == list(range(5 * 9 + 1))
    assert steps == sorted(steps)
    assert {total for _, total, _ in job.progress.seen} == {5 * 9}
    assert job.progress.seen[0][2] == "epoch 1/5"
    assert job.progress.seen[-1][2].startswith("epoch 5/5, loss 0.")
    assert job.progress.seen[-1][2].endswith("clean 1.000")


def test_momentum_and_weight_decay_are_what_the_formula_says(training):
    x, y = few()
    model = linear(3)
    weight = model[1].weight.detach().double().clone()
    bias = model[1].bias.detach().double().clone()
    trained = plain(epochs=3, learning_rate=0.5, momentum=0.9, weight_decay=0.1).fit(
        model, training(x, y, n_classes=3)
    )
    flat, onehot = x.flatten(1).double(), nn.functional.one_hot(y, 3).double()
    speeds = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for _ in range(3):
        error = ((flat @ weight.T + bias).softmax(1) - onehot) / len(y)
        gradients = [error.T @ flat + 0.1 * weight, error.sum(0) + 0.1 * bias]
        speeds = [0.9 * v + g for v, g in zip(speeds, gradients, strict=True)]
        weight, bias = weight - 0.5 * speeds[0], bias - 0.5 * speeds[1]
    torch.testing.assert_close(trained.model[1].weight.double(), weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(trained.model[1].bias.double(), bias, rtol=1e-4, atol=1e-6)


def test_gradient_clip_bounds_a_step(training):
    x, y = few()
    model = linear(3)
    before = copy.deepcopy(model)
    plain(epochs=1, learning_rate=1.0, weight_decay=0.0, gradient_clip=0.01).fit(
        model, training(x, y, n_classes=3)
    )
    pairs = zip(model.parameters(), before.parameters(), strict=True)
    moved = torch.cat([(a - b).detach().flatten() for a, b in pairs])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_same_seed_same_weights_and_another_seed_others(training, stripes):
    defense = Undefended(epochs=2, batch_size=30, augmentation="shift-flip", shift=1)

    def fit(seed):
        torch.manual_seed(seed + 100)  # what the caller drew before must not matter
        fresh = convolutional(dropout=0.5)
        torch.rand(seed + 5)
        return weights(defense.fit(fresh, training(*stripes, seed=seed)).model)

    assert same(fit(0), fit(0))
    assert not same(fit(0), fit(1))


def test_the_callers_random_numbers_are_left_alone(training, stripes):
    model = convolutional(dropout=0.5)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    Undefended(epochs=1).fit(model, training(*stripes))
    assert torch.equal(torch.rand(3), expected)


def test_certain_probabilities_train_as_classes_do(training, stripes):
    x, y = stripes
    certain = nn.functional.one_hot(y, 2).float()
    defense = Undefended(epochs=2, batch_size=50)
    a = defense.fit(convolutional(), training(x, y))
    b = defense.fit(convolutional(), training(x, certain))
    for one, other in zip(weights(a.model), weights(b.model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert a.history[-1]["train_accuracy"] == b.history[-1]["train_accuracy"]
    assert a.history[-1]["validation_accuracy"] == b.history[-1]["validation_accuracy"]


def test_the_weights_that_validate_best_are_kept(training, stripes):
    """Labels of the batches turn false after the second epoch: later weights are worse."""

    class Spoilt(Scripted):
        def objective(self, model, batch):
            y = batch.y if batch.epoch < 2 else 1 - batch.y
            return Objective(*classification(model, batch.x, y))

    recipe = Recipe(epochs=6, batch_size=20, augmentation="none", schedule="constant")
    trained = train(convolutional(), training(*stripes), recipe, Spoilt())
    accuracies = [one["validation_accuracy"] for one in trained.history]
    assert accuracies[1] > 0.9
    assert accuracies[-1] < 0.1
    assert (trained.model(stripes[0]).argmax(1) == stripes[1]).float().mean() > 0.9

    stopping = Recipe(
        epochs=6, batch_size=20, augmentation="none", schedule="constant", early_stop=2
    )
    assert len(train(convolutional(), training(*stripes), stopping, Spoilt()).history) == 4

    last = Recipe(
        epochs=6, batch_size=20, augmentation="none", schedule="constant", validation_share=0.0
    )
    model = train(convolutional(), training(*stripes), last, Spoilt()).model
    assert (model(stripes[0]).argmax(1) == stripes[1]).float().mean() < 0.1


def test_an_alarm_ends_training_before_its_epochs_weights_count(training, stripes):
    recipe = Recipe(epochs=6, batch_size=20, augmentation="none")
    trained = train(convolutional(), training(*stripes), recipe, Scripted(alarm_at=3))
    assert len(trained.history) == 3
    assert trained.flags == ("scripted alarm; weights of epoch 2 kept",)
    again = train(convolutional(), training(*stripes), recipe, Scripted(alarm_at=None))
    assert again.flags == ()


def test_validation_comes_when_due_after_the_warm_up_and_at_the_end(training, stripes):
    class Warming(Scripted):
        warmup_epochs = 3

    recipe = Recipe(epochs=7, batch_size=50, validate_every=2)
    trained = train(convolutional(), training(*stripes), recipe, Warming())
    validated = [one["epoch"] for one in trained.history if "validation_loss" in one]
    assert validated == [4, 6, 7]


def test_the_plateau_schedule_hears_of_validation(training, stripes):
    x, _ = stripes
    noise = torch.randint(2, (200,), generator=torch.Generator().manual_seed(0))
    recipe = {"schedule": "plateau", "patience": 1, "learning_rate": 1.0, "epochs": 8}
    trained = Undefended(batch_size=20, **recipe).fit(convolutional(), training(x, noise))
    losses = [one["validation_loss"] for one in trained.history]
    expected, best, rate = [], float("inf"), 1.0
    for loss in losses:
        expected.append(rate)
        rate, best = (rate if loss < best else rate / 10), min(best, loss)
    assert [one["learning_rate"] for one in trained.history] == pytest.approx(expected)
    assert rate < 1.0


def test_a_loss_that_is_no_number_is_one_clear_line(training):
    x, y = few()
    with pytest.raises(CellError) as caught:
        plain(epochs=50, learning_rate=1e30).fit(linear(3), training(x, y, n_classes=3))
    line = str(caught.value)
    assert line.startswith("training diverged: ")
    assert "learning_rate below 1e+30" in line
    assert "\n" not in line


def test_weights_that_overflow_in_the_last_step_are_noticed(training):
    x, y = few()

    class Steep(Scripted):
        def objective(self, model, batch):
            loss, logits = classification(model, batch.x, batch.y)
            return Objective(loss + 1e38 * (1e38 * model[1].bias).sum() * 1e-38, logits)

    model = linear(3)
    nn.init.zeros_(model[1].bias)
    recipe = plain(epochs=1, learning_rate=1e10)
    with pytest.raises(CellError, match="weights are not finite after epoch 1"):
        train(model, training(x, y, n_classes=3), recipe, Steep())


def test_a_network_that_learnt_nothing_is_flagged(training, stripes):
    x, _ = stripes
    noise = torch.randint(2, (200,), generator=torch.Generator().manual_seed(0))
    trained = Undefended(epochs=1).fit(convolutional(), training(x, noise))
    assert any(one.startswith("did not learn: validation accuracy") for one in trained.flags)


def test_no_batch_is_too_small_for_batch_normalisation(training, stripes):
    x, y = stripes
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    Undefended(epochs=1, batch_size=64, validation_share=0.0).fit(model, training(x[:65], y[:65]))


def test_frozen_weights_stay(training, stripes):
    model = convolutional()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    after = Undefended(epochs=1).fit(model, training(*stripes)).model
    assert torch.equal(after[0].weight, before)
    assert not after[0].weight.requires_grad
    assert after[4].weight.requires_grad


def test_auxiliary_logits_without_a_weight_are_refused(training):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear(3)

        def forward(self, x):
            return (self.inner(x), self.inner(x)) if self.training else self.inner(x)

    x, y = few()
    with pytest.raises(BadPlugin, match="auxiliary_weight"):
        plain(epochs=1).fit(Bare(), training(x, y, n_classes=3))
