import copy

import pytest
import torch
from builders import convolutional, linear
from torch import nn

from quintain.bench.api.threat import make_ball
from quintain.defenses.training.free import Carried, Free
from quintain.defenses.training.loop.objective import Batch

BARE = {
    "batch_size": 20,
    "augmentation": "none",
    "schedule": "constant",
    "learning_rate": 0.1,
    "validation_share": 0.0,
}


class Watched(Free):
    """Free training that keeps what it was given and what it trained on."""

    def loss(self, forward, batch, x_adv):
        SEEN.append((batch.x.clone(), batch.y.clone(), x_adv.detach().clone()))
        return super().loss(forward, batch, x_adv)


SEEN = []


@pytest.fixture
def grey():
    """50 images in sixteenths, 1x4x4, far from 0 and 1: the bare loop's sums are then exact."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(4, 13, (50, 1, 4, 4), generator=generator) / 16
    return x, torch.arange(50) % 3


def test_it_is_the_bare_loop_of_the_paper_bit_for_bit(training, grey):
    """Algorithm 1: batches of 17, 17 and 16, each replayed, the perturbation carried on."""
    SEEN.clear()
    replays, epsilon = 3, 0.125
    defense = Watched(**BARE, epochs=2, epsilon=epsilon, replays=replays)
    trained = defense.fit(convolutional(3, side=4), training(*grey, n_classes=3)).model
    model = convolutional(3, side=4).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    delta = torch.zeros(17, 1, 4, 4)
    batches = SEEN[::replays]
    assert [len(x) for x, _, _ in batches] == [17, 17, 16] * 2
    for x, y, _ in batches:
        for _ in range(replays):
            noise = delta[: len(x)].clone().requires_grad_()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x + noise), y).backward()
            optimizer.step()
            delta[: len(x)] = (
                (noise + epsilon * noise.grad.sign()).clamp(-epsilon, epsilon).detach()
            )
    ours, theirs = trained.state_dict(), model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_each_batch_is_replayed_and_its_perturbation_carried_on(training, grey):
    SEEN.clear()
    Watched(**BARE, epochs=1, epsilon=0.125, replays=2).fit(
        convolutional(3, side=4), training(*grey, n_classes=3)
    )
    first, again, second = SEEN[:3]
    assert len(SEEN) == 6
    assert torch.equal(first[0], again[0])
    assert not torch.equal(again[0], second[0])
    assert torch.equal(first[2], first[0])
    assert (again[2] - again[0]).abs().max() == 0.125
    carried = second[2] - second[0]
    assert (carried != 0).float().mean() > 0.5  # two steps the opposite way cancel


def test_an_epoch_takes_one_pass_for_each_replay(training, grey):
    passes = []
    model = convolutional(3, side=4)
    model.register_forward_hook(lambda module, *_: passes.append(module.training))
    trained = Free(**BARE, epochs=1, epsilon=0.1, replays=4).fit(
        model, training(*grey, n_classes=3)
    )
    assert passes == [True] * 12
    assert 0.0 <= trained.history[0]["train_accuracy"] <= 1.0


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.1), ("L2", 0.5), ("L1", 2.0)])
def test_the_perturbation_climbs_the_loss_within_the_ball(norm, epsilon):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(8, 1, 4, 4, generator=generator), torch.arange(8) % 3
    model = convolutional(3, side=4).eval()
    attack, losses = Carried(norm, epsilon, 0.5), []
    for _ in range(12):
        x_adv = attack.perturb(model, Batch(x, y, torch.arange(8), 0.0, generator))
        assert make_ball(norm, x, torch.full((8,), epsilon)).contains(x_adv.detach()).all()
        loss = nn.functional.cross_entropy(model(x_adv), y)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == nn.functional.cross_entropy(model(x), y).item()
    assert min(losses[6:]) > losses[0] + 0.05


def test_on_a_linear_network_one_replay_reaches_the_worst_point():
    model = linear()
    x, y = torch.full((4, 1, 4, 4), 0.5), torch.tensor([0, 1, 0, 1])
    attack = Carried("Linf", 0.125, 1.0)
    given = Batch(x, y, torch.arange(4), 0.0, torch.Generator())
    nn.functional.cross_entropy(model(attack.perturb(model, given)), y).backward()
    weight = (model[1].weight[1] - model[1].weight[0]).detach()
    worst = x + 0.125 * ((1 - 2 * y)[:, None] * weight.sign()).reshape(x.shape)
    assert torch.equal(attack.perturb(model, given).detach(), worst)


def test_what_is_carried_can_be_saved():
    """A run that goes on from the saved perturbation meets the same points."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(8, 1, 4, 4, generator=generator), torch.arange(8) % 3
    given = Batch(x, y, torch.arange(8), 0.0, generator)
    model = convolutional(3, side=4).eval()

    def go(attack, steps):
        for _ in range(steps):
            nn.functional.cross_entropy(model(attack.perturb(model, given)), y).backward()
        return attack

    whole = go(Carried("Linf", 0.1, 0.3), 5)
    half = go(Carried("Linf", 0.1, 0.3), 2)
    saved = copy.deepcopy(half.state_dict())
    go(half, 1)
    resumed = Carried("Linf", 0.1, 0.3)
    assert resumed.state_dict() == {}
    resumed.load_state_dict(saved)
    assert torch.equal(go(resumed, 3).state_dict()["delta"], whole.state_dict()["delta"])
    resumed.load_state_dict({})
    assert resumed.state_dict() == {}


def test_what_is_carried_follows_the_images_to_their_device():
    """States come back on the CPU. The device `meta` has shapes and no numbers."""
    attack = Carried("Linf", 0.1, 0.3)
    attack.load_state_dict({"delta": torch.zeros(8, 1, 4, 4)})
    assert attack._rows(torch.empty(6, 1, 4, 4, device="meta")).device.type == "meta"
    assert attack.delta.shape == (8, 1, 4, 4)


def test_a_larger_batch_than_before_starts_at_zero_where_it_is_longer():
    attack = Carried("Linf", 0.125, 1.0)
    generator = torch.Generator()
    for size in (2, 4):
        x = torch.full((size, 1, 4, 4), 0.5)
        given = Batch(x, torch.zeros(size).long(), torch.arange(size), 0.0, generator)
        x_adv = attack.perturb(convolutional(3, side=4), given)
        kept = x_adv.detach().clone()
        x_adv.sum().backward()
    assert (kept[:2] == 0.625).all()
    assert (kept[2:] == 0.5).all()
