import pytest
import torch
from builders import linear, random_images
from torch import nn

from quintain.bench.api.errors import BadParameter
from quintain.bench.api.threat import make_ball, measure
from quintain.defenses.none import Undefended
from quintain.defenses.training.adversarial_training import AdversarialTraining
from quintain.defenses.training.loop.inner_attack import Adversary, as_used
from quintain.defenses.training.loop.objective import Batch

QUICK = {"epochs": 8, "batch_size": 50, "augmentation": "none", "learning_rate": 2.0}


def batch(x, y, seed=0):
    return Batch(x, y, torch.arange(len(x)), 0.0, torch.Generator().manual_seed(seed))


def robust(model, x, y, epsilon):
    """Exact robust accuracy of a linear network of two classes: margin against the dual norm.

    No attack involved. Pixels stay clear of 0 and 1, so the box takes nothing from the adversary.
    """
    weight, bias = model[1].weight.detach().double(), model[1].bias.detach().double()
    sign = 2.0 * y - 1.0
    margin = sign * (x.flatten(1).double() @ (weight[1] - weight[0]) + bias[1] - bias[0])
    return (margin > epsilon * (weight[1] - weight[0]).abs().sum()).double().mean().item()


@pytest.mark.parametrize("given", [{"method": "pgd", "steps": 3}, {"method": "fgsm"}])
def test_it_gives_up_the_weak_cues_for_robustness(given, training, two_cues):
    x, y = two_cues
    plain = Undefended(**QUICK).fit(linear(), training(x, y)).model
    job = training(x, y, epsilon=0.1)
    trained = AdversarialTraining(**QUICK, **given).fit(linear(), job)
    stated_truly = ((x[:, 0, 0, 0] > 0.5).long() == y).double().mean().item()
    assert robust(plain, x, y, 0.0) > 0.98
    assert robust(plain, x, y, 0.1) < 0.2
    assert robust(trained.model, x, y, 0.0) == pytest.approx(stated_truly, abs=0.01)
    assert robust(trained.model, x, y, 0.1) == pytest.approx(stated_truly, abs=0.01)
    assert trained.flags == ()
    last = trained.history[-1]
    assert last["robust_validation_accuracy"] <= last["validation_accuracy"]
    assert "robust" in job.progress.seen[-1][2]


def test_robust_validation_accuracy_is_the_exact_one(training, two_cues):
    """PGD reaches the worst point of a linear network: what it measures has a closed form."""
    x, y = two_cues
    defense = AdversarialTraining(**{**QUICK, "epochs": 1}, validation_share=0.5, epsilon=0.1)
    job = training(x, y)
    parts, read = [], job.data.images.read
    job.data.images.read = lambda rows: parts.append(rows) or read(rows)
    trained = defense.fit(linear(), job)
    accuracy = trained.history[0]["robust_validation_accuracy"]
    exact = [robust(trained.model, x[rows], y[rows], 0.1) for rows in parts]
    assert sorted(torch.cat(parts).tolist()) == list(range(600))
    assert accuracy == pytest.approx(exact[1], abs=1e-6)
    assert accuracy != pytest.approx(exact[0], abs=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("steps", [1, 4])
def test_perturbations_stay_in_the_ball_and_raise_the_loss(norm, steps):
    x = random_images(20, 1, 4, 4)
    y = torch.arange(20) % 3
    model = linear(3)
    epsilon = {"Linf": 0.05, "L2": 0.2, "L1": 1.0}[norm]
    kept = x.clone()
    x_adv = Adversary(norm, epsilon, steps, 2.5 / steps).perturb(model, batch(x, y))
    assert make_ball(norm, x, torch.full((20,), epsilon)).contains(x_adv).all()
    assert torch.equal(x, kept)
    assert not x_adv.requires_grad
    loss = nn.functional.cross_entropy
    assert loss(model(x_adv), y) > loss(model(x), y) + 0.02


def test_pgd_finds_the_worst_point_of_a_linear_network():
    x = 0.3 + 0.4 * random_images(20, 1, 4, 4)
    y = torch.arange(20) % 2
    model = linear()
    weight = (model[1].weight[1] - model[1].weight[0]).detach()
    worst = x + 0.1 * ((1 - 2 * y)[:, None] * weight.sign()).reshape(x.shape)
    x_adv = Adversary("Linf", 0.1, 5, 0.5).perturb(model, batch(x, y))
    torch.testing.assert_close(x_adv, worst)


def test_starts_are_random_and_follow_the_generator():
    x, y = torch.full((4, 1, 4, 4), 0.5), torch.tensor([0, 1, 0, 1])
    for norm in ("Linf", "L2", "L1"):
        still = Adversary(norm, 0.1, 1, 1e-9)
        a, b, c = (still.perturb(linear(), batch(x, y, seed)) for seed in (0, 0, 1))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert not torch.equal(a[0], a[2])
        assert measure(a - x, norm).min() > 0.01


def test_the_attack_meets_the_network_as_used_and_leaves_no_trace():
    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.norm = linear(), nn.BatchNorm2d(1)
            self.norm.weight.requires_grad_(False)

        def forward(self, x):
            learning = [name for name, one in self.named_parameters() if one.requires_grad]
            seen.append((self.training, self.norm.training, learning))
            return self.inner(self.norm(x))

    model = Watching()
    statistics = model.norm.running_mean.clone()
    x, y = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 0, 1])
    Adversary("Linf", 0.1, 2, 1.0).perturb(model, batch(x, y))
    assert seen == [(False, False, [])] * 2
    assert model.training
    assert model.norm.training
    assert torch.equal(model.norm.running_mean, statistics)
    assert not model.norm.weight.requires_grad
    assert model.norm.bias.requires_grad
    assert all(one.grad is None for one in model.parameters())
    with pytest.raises(RuntimeError), as_used(model):
        raise RuntimeError
    assert model.training
    assert model.inner[1].weight.requires_grad


def test_epsilon_grows_in_the_warm_up(training, two_cues):
    """Spied on through the inputs: the largest move of each epoch's training batches."""
    x, y = two_cues
    moves = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, at):
            if self.training:
                nearest = (at[:, None] - x[None]).abs().amax(dim=(2, 3, 4)).amin(dim=1)
                moves.append(nearest.max().item())
            return self.inner(at)

    defense = AdversarialTraining(
        epochs=4, batch_size=270, augmentation="none", epsilon=0.1, steps=2, warmup_epochs=2
    )
    trained = defense.fit(Spy(), training(x, y))
    # two steps an epoch; the nearest clean image may be closer than the true one, never farther
    expected = [0.0, 0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1]
    assert moves == pytest.approx(expected, abs=1e-4)
    validated = [one["epoch"] for one in trained.history if "robust_validation_loss" in one]
    assert validated == [3, 4]


def test_epsilon_comes_from_the_defense_or_else_from_the_threat(training, two_cues):
    def last(named, **threat):
        defense = AdversarialTraining(epochs=1, batch_size=300, steps=1, **named)
        return defense.fit(linear(), training(*two_cues, **threat)).history[-1]

    assert last({"epsilon": "1/10"}) == last({}, epsilon=0.1)
    assert last({"epsilon": 0.1}, epsilon=0.3) == last({}, epsilon=0.1)
    assert last({}, epsilon=0.3) != last({}, epsilon=0.1)
    assert last({"norm": "L2"}, epsilon=0.3) == last({}, epsilon=0.3, norm="L2")
    with pytest.raises(BadParameter, match="needs an epsilon"):
        last({})


def test_same_seed_same_weights(training, two_cues):
    def fit(seed):
        defense = AdversarialTraining(epochs=1, epsilon=0.1, steps=2)
        return defense.fit(linear(), training(*two_cues, seed=seed)).model[1].weight

    assert torch.equal(fit(3), fit(3))
    assert not torch.equal(fit(3), fit(4))


def test_a_network_that_blinds_its_attack_is_caught(training, two_cues):
    """After two epochs it is right at images and at the far corners of balls, wrong in between.

    The loss rises up to 3/4 of the way to a corner and falls from there. One long step lands in a
    corner; short ones stay where the loss is high. Images on a coarse grid tell where the ball is.
    """
    x, y = two_cues
    epsilon = 0.05

    class Blinding(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.passes = linear(), 0

        def forward(self, at):
            self.passes += self.training
            if self.passes <= 22 or self.training:  # two epochs of eleven batches
                return self.inner(at)
            clean = (at.detach() * 5).round() / 5
            way = (at - clean).abs().flatten(1).mean(1) / epsilon
            height = torch.where(way < 0.75, way / 0.75, (1 - way) / 0.25)
            answer = nn.functional.one_hot(self.inner(clean).argmax(1), 2)
            return answer * (1 - 4 * height)[:, None]

    defense = AdversarialTraining(**QUICK, method="fgsm", epsilon=epsilon)
    trained = defense.fit(Blinding(), training((x * 5).round() / 5, y))
    assert len(trained.history) == 3
    assert trained.history[2]["robust_validation_accuracy"] == 0.0
    assert trained.history[2]["fgsm_validation_accuracy"] > 0.8
    best = min((1, 2), key=lambda n: trained.history[n - 1]["robust_validation_loss"])
    assert trained.flags[0].startswith("catastrophic overfitting in epoch 3: validation accuracy ")
    assert trained.flags[0].endswith(f"weights of epoch {best} kept")
