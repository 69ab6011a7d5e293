import copy

import pytest
import torch
from builders import convolutional, linear, random_images
from torch import nn

from quintain.defenses.training.adversarial_training import AdversarialTraining
from quintain.defenses.training.free import Carried, Free
from quintain.defenses.training.loop.objective import classified
from quintain.defenses.training.mart import MART
from quintain.defenses.training.trades import TRADES
from quintain.defenses.training.weight_perturbation import WeightPerturbation

X = random_images(12, 1, 4, 4)
Y = torch.arange(12) % 3


def loss(forward):
    return classified(forward(X), Y)


def state(model):
    return {name: one.detach().clone() for name, one in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("size", [0.01, 0.3])
def test_each_layer_moves_along_its_gradient_in_proportion_to_its_norm(size):
    model = convolutional(3, side=4)
    found = nn.functional.cross_entropy(model(X), Y)
    perturbed = WeightPerturbation(size).perturbed(model, found)
    for name in ("0.weight", "4.weight"):
        weight = model.get_parameter(name)
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(X), Y), weight)
        moved = (perturbed[name] - weight).detach()
        assert (moved.norm() / weight.norm()).item() == pytest.approx(size, rel=1e-4)
        along = nn.functional.cosine_similarity(moved.flatten(), gradient.flatten(), dim=0)
        assert along.item() == pytest.approx(1.0, abs=1e-5)
    buffers = {name for name, _ in model.named_buffers()}
    assert perturbed.keys() - buffers == {"0.weight", "4.weight"}


def test_gradients_are_those_of_the_perturbed_network():
    """Computed the authors' way: a copy of the network, moved in place."""
    model = convolutional(3, side=4)
    moved = copy.deepcopy(model)
    climbing = nn.functional.cross_entropy(moved(X), Y)
    parameters = dict(moved.named_parameters())
    gradients = torch.autograd.grad(climbing, parameters.values())
    with torch.no_grad():
        for (name, one), gradient in zip(parameters.items(), gradients, strict=True):
            if name in ("0.weight", "4.weight"):
                one += 0.1 * one.norm() * gradient / gradient.norm()
    reference = nn.functional.cross_entropy(moved(X), Y)
    reference.backward()
    worst = WeightPerturbation(0.1).worst(model, 0.0, loss)
    worst.loss.backward()
    assert worst.loss.item() == pytest.approx(reference.item(), rel=1e-6)
    assert worst.loss > climbing + 0.05
    for name, one in model.named_parameters():
        torch.testing.assert_close(one.grad, parameters[name].grad, rtol=1e-4, atol=1e-6)


def test_weights_and_running_statistics_are_the_real_networks():
    model, plain = convolutional(3, side=4), convolutional(3, side=4)
    before = state(model)
    WeightPerturbation(0.1).worst(model, 0.0, loss).loss.backward()
    plain(X)
    assert same(state(model), state(plain))
    assert not same(state(model), before)
    assert same(
        {name: one for name, one in before.items() if "running" not in name and "num" not in name},
        state(model),
    )


def test_nothing_is_left_perturbed_when_something_raises():
    model = convolutional(3, side=4)
    before, kept = state(model), dict(model.named_parameters())
    calls = []

    def failing(forward):
        calls.append(len(calls))
        found = loss(forward)
        if calls[-1]:
            raise RuntimeError("out of memory")
        return found

    class Broken(nn.Module):
        """Raises within the perturbed pass itself."""

        def __init__(self):
            super().__init__()
            self.inner, self.passes = convolutional(3, side=4), 0

        def forward(self, x):
            self.passes += 1
            if self.passes == 2:
                raise RuntimeError("out of memory")
            return self.inner(x)

    for one, call in ((model, failing), (Broken(), loss)):
        with pytest.raises(RuntimeError, match="out of memory"):
            WeightPerturbation(0.1).worst(one, 0.0, call)
    assert calls == [0, 1]
    assert all(one is kept[name] for name, one in model.named_parameters())
    weights = {name: one for name, one in before.items() if name in kept}
    assert same(weights, state(model))


@pytest.mark.parametrize("awp", [WeightPerturbation(0.0), WeightPerturbation(0.1, warmup_epochs=2)])
def test_off_and_in_its_warm_up_it_is_one_ordinary_pass(awp):
    model, passes = convolutional(3, side=4), []
    model.register_forward_hook(lambda *_: passes.append(1))
    found = awp.worst(model, 1.9, loss).loss
    assert len(passes) == 1
    assert found.item() == nn.functional.cross_entropy(convolutional(3, side=4)(X), Y).item()


def test_it_sets_in_after_its_warm_up(training, two_cues):
    def weights(**named):
        defense = AdversarialTraining(
            epochs=2, batch_size=300, epsilon=0.1, steps=1, validation_share=0.0, **named
        )
        model = linear()
        passes = []
        model.register_forward_hook(lambda module, *_: passes.append(module.training))
        return defense.fit(model, training(*two_cues)).model[1].weight, sum(passes)

    off, whole = weights(), weights(weight_perturbation=0.1)
    late = weights(weight_perturbation=0.1, weight_perturbation_warmup=1)
    assert (off[1], late[1], whole[1]) == (4, 6, 8)
    assert not torch.equal(off[0], late[0])
    assert not torch.equal(late[0], whole[0])


def test_frozen_weights_and_those_without_a_gradient_are_left_alone():
    model = convolutional(3, side=4)
    model[0].weight.requires_grad_(False)
    model.add_module("idle", nn.Identity())
    model.idle.weight = nn.Parameter(torch.ones(2, 2))
    perturbed = WeightPerturbation(0.1).perturbed(model, nn.functional.cross_entropy(model(X), Y))
    assert perturbed.keys() - {name for name, _ in model.named_buffers()} == {"4.weight"}
    flat = WeightPerturbation(0.1).perturbed(model, 0.0 * model(X).sum())
    assert torch.equal(flat["4.weight"], model[4].weight)


def test_the_carried_perturbation_of_free_training_moves_once_a_step(
    training, two_cues, monkeypatch
):
    """Looking for the worst weights takes a backward pass of its own, which is not to move it."""
    moved, ascend = [], Carried._ascend
    monkeypatch.setattr(
        Carried, "_ascend", lambda self, *given: moved.append(1) or ascend(self, *given)
    )
    model = linear()
    defense = Free(
        epochs=1, batch_size=300, epsilon=0.1, replays=2, weight_perturbation=0.01,
        validation_share=0.0,
    )  # fmt: skip
    defense.fit(model, training(*two_cues))
    assert len(moved) == 4


class Headed(nn.Module):
    """A network with an auxiliary classifier in training mode, and batch normalisation."""

    auxiliary_weight = 0.3

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.main, self.side = nn.Linear(16, 2), nn.Linear(16, 2)

    def forward(self, x):
        inner = self.body(x)
        return (self.main(inner), self.side(inner)) if self.training else self.main(inner)


@pytest.mark.parametrize("kind", [AdversarialTraining, Free, TRADES, MART])
def test_every_defense_trains_auxiliary_classifiers_with_it(kind, training, two_cues):
    defense = kind(epochs=2, batch_size=100, epsilon=0.05, weight_perturbation=0.01)
    before = Headed()
    trained = defense.fit(Headed(), training(*two_cues)).model
    for name in ("main.weight", "side.weight", "body.0.weight"):
        assert not torch.equal(trained.get_parameter(name), before.get_parameter(name))
