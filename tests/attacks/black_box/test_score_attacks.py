"""SimBA, bandits and ZOO: what each of them is, on functions whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import problem_at
from torch.nn import functional

from quintain.attacks.black_box.bandits import Bandits
from quintain.attacks.black_box.simba import SimBA
from quintain.attacks.black_box.zoo import ZOO
from quintain.attacks.gradients.bases import Cosines
from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.rng import Draws
from quintain.bench.api.threat import measure

WEIGHT = torch.randn(16, generator=torch.Generator().manual_seed(5))


class Plane:
    """A victim of two classes parted by a plane; it keeps what it was asked."""

    access = "score"

    def __init__(self):
        self.points = []

    def scores(self, x, rows=None):
        self.points.append((x, rows))
        side = (x.flatten(1) - 0.5) @ WEIGHT - 5.0
        return torch.stack([-side / 2, side / 2], dim=1)

    def labels(self, x, rows=None):
        return self.scores(x, rows).argmax(1)


def problem(norm="L2", count=3, epsilon=0.4):
    x = torch.full((count, 1, 4, 4), 0.5)
    return problem_at(x, Plane(), norm=norm, epsilon=epsilon)


def path(attack, at, steps):
    """The states after each step, the first one before any."""
    states = [attack.start(at)]
    for step in range(steps):
        at.step = torch.full_like(at.step, step)
        at.draws = Draws(0, at.draws.example, at.draws.restart, at.step)
        states.append(attack.step(at, states[-1]))
    return states


def rise(x):
    """How far along the plane's normal, as part of the most that an L2 ball of 0.4 allows."""
    return ((x.flatten(1) - 0.5) @ WEIGHT) / (0.4 * WEIGHT.norm())


def test_simba_tries_each_pixel_once_and_moves_it_the_right_way():
    at = problem("Linf", epsilon=0.2)
    states = path(SimBA(steps=16), at, 16)
    moved = states[-1].x_adv.flatten(1) - 0.5
    assert torch.allclose(moved, 0.2 * WEIGHT.sign().expand(3, -1), atol=1e-6)
    assert at.ball.contains(states[-1].x_adv).all()
    asked = torch.cat([torch.arange(3) if rows is None else rows for _, rows in at.victim.points])
    backwards = (WEIGHT < 0).sum().item()
    assert torch.bincount(asked).tolist() == [1 + 16 + backwards] * 3


@pytest.mark.parametrize("basis", [None, Cosines(1.0)])
def test_simba_in_l2_climbs_and_stays_in_the_ball(basis):
    at = problem()
    attack = SimBA(steps=64) if basis is None else SimBA(steps=64, basis=basis)
    states = path(attack, at, 64)
    values = torch.stack([one.value for one in states])
    assert (values.diff(dim=0) >= 0).all()
    for one in states:
        assert at.ball.contains(one.x_adv).all()
    assert (rise(states[-1].x_adv) > 0.8).all()


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_the_prior_of_bandits_turns_towards_the_gradient(norm):
    at = problem(norm)
    states = path(Bandits(steps=150), at, 150)
    assert not states[0].prior.any()
    prior = states[-1].prior.flatten(1)
    expected = WEIGHT.sign() if norm == "Linf" else WEIGHT
    cosine = torch.cosine_similarity(prior, expected[None])
    assert (cosine > (0.35 if norm == "Linf" else 0.6)).all()
    assert len(at.victim.points) == 2 * 150
    if norm == "Linf":
        assert (prior.abs() <= 1.0).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_prior_of_bandits_takes_the_authors_step(norm):
    """Their update: the slope along the noise, both scaled by the exploration, times the rate."""
    at = problem(norm, count=1)
    attack = Bandits(steps=1, tile=1)
    state = attack.start(at)
    moved = attack._learnt(at, state).double()
    exploration, reach, rate = {"Linf": (1.0, 0.1, 100.0), "L2": (0.01, 0.01, 0.1)}[norm]
    noise = exploration * at.draws.normal((1, 4, 4), "exploration") / 4.0
    unit = noise / noise.norm()
    loss = [functional.cross_entropy(at.victim.scores(at.x + sign * reach * unit), at.y)
            for sign in (1.0, -1.0)]  # fmt: skip
    step = rate * ((loss[0] - loss[1]) / (reach * exploration) * noise).double()
    expected = step if norm == "L2" else step.tanh()
    assert torch.allclose(moved, expected, rtol=0.02, atol=1e-6)


def test_the_exponentiated_gradient_is_the_papers():
    """(1 + p) e^m and (1 - p) e^-m over their sum, on [-1, 1]."""
    prior, move = torch.tensor([-0.9, 0.0, 0.3, 0.999]).double(), torch.tensor(0.7).double()
    up, down = (1 + prior) / 2 * move.exp(), (1 - prior) / 2 * (-move).exp()
    assert torch.allclose((prior.atanh() + move).tanh(), 2 * up / (up + down) - 1)


def test_tiles_share_one_value():
    at = problem()
    spread = path(Bandits(tile=2), at, 1)[-1].x_adv[0, 0] - 0.5
    assert torch.equal(spread[0::2], spread[1::2])
    assert torch.equal(spread[:, 0::2], spread[:, 1::2])
    assert Bandits(tile=3).start(at).prior.shape == (3, 1, 2, 2)


def test_zoo_comes_near_the_nearest_point_of_a_linear_model(linear):
    attack = ZOO(steps=600, searches=4, coordinates=16, first_weight=1.0)
    result = evaluate(linear.module, linear.images[:12], linear.labels[:12], attack, norm="L2",
                      epsilons=[1e-4, 2.0])  # fmt: skip
    ratio = result.records["distance"] / linear.distances["L2"][:12]
    assert (ratio >= 0.999).all()
    assert ratio.median() < 1.15


def test_zoo_gets_somewhere_on_images_of_32x32_with_its_defaults():
    """Linear, the nearest point is 0.5 away: 32 coordinates a step would not get there in 60."""
    random = torch.Generator().manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(1, 3, 32, 32, generator=random)
    weight = torch.randn(3072, generator=random)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.stack([-weight, weight]) / 2)
        score = weight @ x.flatten() + 0.5 * weight.norm()
        module[1].bias.copy_(torch.stack([score, -score]) / 2)
    y = torch.zeros(1, dtype=torch.int64)
    result = evaluate(module, x, y, replace(ZOO(), steps=60), norm="L2", epsilons=[0.9])
    assert 0.5 < result.records["distance"].item() < 0.9
    assert (ZOO().steps, ZOO().coordinates, ZOO().learning_rate) == (1000, 128, 0.01)
    assert (ZOO().searches, ZOO().first_weight, ZOO().spacing) == (1, 0.5, 1e-4)


def test_zoo_bisects_its_constant():
    at = problem(count=1)
    attack = ZOO(steps=8, searches=4, coordinates=2, first_weight=1.0)
    weights = [float(one.weight) for one in path(attack, at, 8)[1:]]
    assert weights == [1, 1, 10, 10, 100, 100, 1000, 1000]  # nothing is broken so soon
    state = path(attack, at, 1)[-1]
    state.won = ~state.won
    yes = torch.tensor([True])
    second = attack._next_search(at, state, yes)
    assert (second.weight, second.low, second.high) == (0.5, 0.0, 1.0)
    third = attack._next_search(at, second, yes)
    assert (third.weight, third.low, third.high) == (0.75, 0.5, 1.0)
    assert torch.equal(third.x_adv, at.x)
    assert not third.updates.any()


@pytest.mark.parametrize(
    ("attack", "norm", "epsilon", "broken"),
    [(SimBA(300), "L2", 0.8, 0.7), (SimBA(300), "Linf", 0.14, 0.5),
     (Bandits(300), "L2", 0.8, 0.7), (Bandits(300), "Linf", 0.14, 0.4), (ZOO(200), "L2", 0.9, 0.6)],
)  # fmt: skip
def test_it_breaks_a_network(digits, attack, norm, epsilon, broken):
    x, y = digits.images[:30], digits.labels[:30]
    result = evaluate(digits.module, x, y, attack, norm=norm, epsilons=[epsilon])
    assert result.curve["attack_success_rate"].item() >= broken
    assert (result.records["backward"] == 0).all()


@pytest.mark.parametrize("attack", [SimBA(300), Bandits(300)])
def test_it_reaches_target_classes(digits, attack):
    x, y = digits.images[:20], digits.labels[:20]
    result = evaluate(digits.module, x, y, attack, norm="L2", epsilons=[2.0],
                      targets=(y + 1) % 10)  # fmt: skip
    assert result.curve["attack_success_rate"].item() > 0.6
    far = measure(result.adversarials(2.0).double() - x.double(), "L2")
    assert far.max() <= 2.0


def test_an_earlier_end_is_where_simba_goes_on():
    at = problem()
    at.warm, at.start_points = torch.tensor([True, False, True]), at.x + 0.05
    start = SimBA().start(at).x_adv
    assert np.allclose((start - at.x).flatten(1).amax(dim=1), [0.05, 0.0, 0.05])


@pytest.mark.parametrize(
    ("kind", "given"),
    [(SimBA, {"steps": 0}), (SimBA, {"step_size": 0.0}), (Bandits, {"tile": 0}),
     (Bandits, {"reach": 0.0}), (ZOO, {"coordinates": 0}), (ZOO, {"spacing": 0.0})],
)  # fmt: skip
def test_parameters_that_make_no_attack_are_refused(kind, given):
    (name,) = given
    with pytest.raises(BadParameter, match=name):
        kind(**given)


def test_zoo_needs_a_step_for_each_search():
    with pytest.raises(BadParameter, match="searches need as many steps"):
        ZOO(steps=2, searches=3)
