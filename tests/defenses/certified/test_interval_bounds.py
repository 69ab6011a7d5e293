import pytest
import torch
from builders import draws, linear, random_images
from torch import nn

from quintain.bench.api.defense import Certifier
from quintain.bench.api.errors import BadParameter
from quintain.defenses.certified.interval_bounds import IntervalBounded, IntervalBounds, _Bounded
from quintain.defenses.training.loop.objective import Batch

QUICK = {"epochs": 12, "batch_size": 50, "augmentation": "none", "learning_rate": 0.5}
RAMP = {"warmup_epochs": 1, "ramp_epochs": 6}


def test_the_radius_of_a_linear_network_is_its_distance_from_another_class():
    """In Linf the distance is the lead over the L1 norm of the weights' difference."""
    network = linear(3)
    x = 0.4 + 0.2 * random_images(30, 1, 4, 4, seed=1)
    found = IntervalBounded(network).certify(x, draws(30), 16)
    with torch.no_grad():
        logits, weight = network(x).double(), network[1].weight.double()
        y = logits.argmax(1)
        margin = logits.gather(1, y[:, None]) - logits
        length = (weight[y][:, None] - weight[None]).abs().sum(2)
        exact = (margin / length).masked_fill(length == 0, torch.inf).amin(1)
    assert torch.equal(found.prediction, y)
    assert (found.radius <= exact).all()
    near = exact < 0.4  # beyond, the border of [0, 1] takes a part of the ball
    assert near.sum() > 10
    torch.testing.assert_close(found.radius[near], exact[near], rtol=1e-3, atol=1e-5)


def test_what_no_image_can_change_is_certified_to_the_end():
    network = linear()
    with torch.no_grad():
        network[1].weight.mul_(1e-6)
        network[1].bias.copy_(torch.tensor([1.0, 0.0]))
    found = IntervalBounded(network).certify(torch.rand(3, 1, 4, 4), draws(3), 16)
    assert found.radius.tolist() == [1.0] * 3
    with torch.no_grad():
        network[1].bias.zero_()
        network[1].weight.zero_()
    found = IntervalBounded(network).certify(torch.rand(3, 1, 4, 4), draws(3), 16)
    assert found.radius.tolist() == [0.0] * 3  # a tie


def test_batches_change_nothing():
    x = torch.rand(40, 1, 4, 4)
    module = IntervalBounded(linear(4))
    whole, parts = module.certify(x, draws(40), 64), module.certify(x, draws(40), 16)
    assert torch.equal(whole.radius, parts.radius)
    assert torch.equal(module.predict(x, draws(40), 16), whole.prediction)
    assert isinstance(module, Certifier)
    assert torch.equal(module(x), module.network(x))


def test_training_certifies_what_it_can_truly_tell(training, two_cues):
    """Of two cues only the strong one, a lie to one in ten, can be certified at 0.1."""
    x, y = two_cues
    defense = IntervalBounds(**QUICK, **RAMP)
    trained = defense.fit(linear(), training(x, y, epsilon=0.1))
    found = trained.model.certify(x, draws(600), 128)
    stated_truly = ((x[:, 0, 0, 0] > 0.5).long() == y).double().mean().item()
    certified = ((found.prediction == y) & (found.radius >= 0.1)).double().mean().item()
    assert certified == pytest.approx(stated_truly, abs=0.02)
    assert trained.flags == ()
    validated = [one["epoch"] for one in trained.history if "robust_validation_loss" in one]
    assert validated == [8, 9, 10, 11, 12]


def method(**changes):
    given = {
        "epsilon": 0.1, "box": 0.2, "kappa": 0.5, "rising": 2, "risen": 6, "label_smoothing": 0.0,
        "examiner": None,
    }  # fmt: skip
    return _Bounded(**{**given, **changes})


def batch(epoch):
    x = 0.3 + 0.4 * random_images(20, 1, 4, 4)
    return Batch(x, torch.arange(20) % 3, torch.arange(20), epoch, torch.Generator())


@pytest.mark.parametrize(
    ("epoch", "kappa", "radius"),
    [(0.0, 1.0, 0.0), (1.9, 1.0, 0.0), (4.0, 0.75, 0.1), (6.0, 0.5, 0.2), (9.5, 0.5, 0.2)],
)
def test_the_loss_ramps_from_the_images_to_their_boxes(epoch, kappa, radius):
    """Of a linear network the worst logits of a box are known."""
    network, some = linear(3), batch(epoch)
    loss, logits = method().objective(network, some)
    weight = network[1].weight
    worst = logits - logits.gather(1, some.y[:, None])
    worst = worst + radius * (weight[some.y][:, None] - weight[None]).abs().sum(2)
    cross = nn.functional.cross_entropy
    wanted = kappa * cross(logits, some.y) + (1 - kappa) * cross(worst, some.y)
    torch.testing.assert_close(loss, wanted)
    assert network.training


def test_a_ramp_of_no_epochs_is_a_step():
    at = [method(rising=2.0, risen=2.0)._ramp(epoch) for epoch in (0.0, 1.9, 2.0, 5.0)]
    assert at == [0.0, 0.0, 1.0, 1.0]


def test_bounds_are_of_the_network_in_evaluation_mode():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
    method().objective(network, batch(9.0))[0].backward()
    assert network.training
    assert network[3].weight.grad is not None
    assert network[0].num_batches_tracked == 1  # by the images alone


def test_a_network_that_it_cannot_bound_is_refused(training, two_cues):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Softplus())
    defense = IntervalBounds(epochs=1, warmup_epochs=0, ramp_epochs=0)
    with pytest.raises(BadParameter, match=r"layer '2' \(Softplus\)"):
        defense.fit(network, training(*two_cues, epsilon=0.1))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kappa": 1.5}, "kappa = 1.5 must be between 0 and 1"),
        ({"margin": 0.5}, "margin = 0.5 must be at least 1"),
        ({"ramp_epochs": 80}, r"warmup_epochs \+ ramp_epochs = 85 must be below epochs = 60"),
        ({"warmup_epochs": -1}, "warmup_epochs = -1 must be 0 or more"),
        ({"epsilon": "much"}, "much"),
    ],
)
def test_what_cannot_be_is_refused(given, says):
    with pytest.raises(BadParameter, match=says):
        IntervalBounds(**given)


def test_it_needs_an_epsilon(training, two_cues):
    with pytest.raises(BadParameter, match="interval-bounds needs an epsilon"):
        IntervalBounds(**QUICK, **RAMP).fit(linear(), training(*two_cues))
