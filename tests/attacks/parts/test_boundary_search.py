"""Where attacks on labels start, how they find the boundary, and how near they come to x."""

import numpy as np
import pytest
import torch
from builders import problem_at, random_images
from torch import nn

from quintain.attacks.black_box.boundary import Boundary
from quintain.attacks.black_box.hop_skip_jump import HopSkipJump
from quintain.attacks.black_box.rays import RayS
from quintain.attacks.parts.boundary_search import StartingPoints, bisect
from quintain.bench import evaluate
from quintain.bench.api.attack import Preparation
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.threat import measure
from quintain.bench.datasets.in_memory import in_memory

NAMES = ("a", "b", "c", "d")


class Labels:
    """A victim that answers with a function's classes, as long as the budget lasts."""

    access = "decision"

    def __init__(self, function, count, budget):
        self.function = function
        self.asked = torch.zeros(count, dtype=torch.int64)
        self.budget = budget

    def labels(self, x, rows=None):
        answers = self.function(x)
        for place, row in enumerate(rows.tolist()):
            if self.asked[row] >= self.budget:
                answers[place] = -1
            else:
                self.asked[row] += 1
        return answers


def problem(function, count=4, budget=10**6, norm="L2", y=None, targeted=False, shape=(1, 2, 8)):
    x = torch.full((count, *shape), 0.5)
    victim = Labels(function, count, budget)
    return problem_at(x, victim, y=y, targeted=targeted, norm=norm, epsilon=4.0)


def threshold(at):
    """Class 1 where the first pixel is at least `at`."""
    return lambda x: (x[:, 0, 0, 0] >= at).long()


def test_bisection_ends_on_the_adversarial_side_within_the_tolerance():
    at = problem(threshold(0.73))
    zeros = torch.zeros(4, dtype=torch.float64)

    def points(share):
        return at.x + 0.5 * share.reshape(-1, 1, 1, 1).float()

    active = torch.tensor([True, True, False, True])
    tolerance = torch.tensor([0.1, 0.01, 0.1, 0.001]).double()
    high = bisect(at, points, zeros, zeros + 1.0, tolerance, active)
    assert high[2] == 1.0
    assert at.victim.asked.tolist() == [4, 7, 0, 10]  # the halvings that it takes
    for row in (0, 1, 3):
        assert 0.46 <= high[row] <= 0.46 + tolerance[row] + 1e-6


def test_bisection_ends_when_the_budget_does():
    at = problem(threshold(0.73), budget=3)
    zeros = torch.zeros(4, dtype=torch.float64)
    high = bisect(at, lambda s: at.x + 0.5 * s.reshape(-1, 1, 1, 1).float(), zeros, zeros + 1.0,
                  zeros + 1e-6, torch.ones(4).bool())  # fmt: skip
    assert at.victim.asked.tolist() == [3] * 4
    assert torch.equal(at.victim.function(at.x + 0.5 * high.reshape(-1, 1, 1, 1).float()),
                       torch.ones(4).long())  # fmt: skip


def test_noise_is_drawn_until_it_is_adversarial():
    at = problem(threshold(0.9), count=300)
    points, found = StartingPoints(noise=50).find(at)
    assert found.float().mean() > 0.97  # all but 0.9^50
    assert (at.victim.function(points)[found] == 1).all()
    assert at.victim.asked.double().mean().item() == pytest.approx(10, abs=1.5)  # 1 in 10 is
    assert torch.equal(points[~found], at.x[~found])


def owned(labels, classes=NAMES):
    """Images whose first pixel is a tenth of their number."""
    images = torch.full((len(labels), 1, 2, 8), 0.0)
    images[:, 0, 0, 0] = torch.arange(len(labels)) / 10
    return in_memory(images, torch.tensor(labels), classes)


def prepared(data, **given):
    preparation = Preparation(None, data, 4, 0, None, None, None, None, None)
    return StartingPoints(**given).prepare(preparation)


def by_number(labels):
    return lambda x: torch.tensor(labels)[(x[:, 0, 0, 0] * 10).round().long()]


LABELS = [2, 0, 1, 0, 3, 1]


def test_towards_a_target_the_attackers_images_of_that_class_are_tried():
    y = torch.tensor([0, 1, 2, 3])
    at = problem(by_number([*LABELS, *[0] * 5]), y=y, targeted=True)
    points, found = prepared(owned(LABELS)).find(at)
    assert found.all()
    assert at.victim.asked.tolist() == [1] * 4
    assert torch.equal(at.victim.function(points), y)


def test_untargeted_images_of_other_classes_are_tried_where_noise_does_not_help():
    y = torch.tensor([0, 1, 2, 3])
    at = problem(by_number([*LABELS, *[0] * 5]), y=y)
    points, found = prepared(owned(LABELS), noise=0).find(at)
    assert found.all()
    assert at.victim.asked.tolist() == [1] * 4
    assert (at.victim.function(points) != y).all()


@pytest.mark.parametrize("classes", [("unlabelled",), NAMES])
def test_images_without_the_wanted_class_are_tried_all_the_same(classes):
    data = owned([0] * 6, classes)
    at = problem(by_number([0, 0, 2, 0, 0, 0, *[0] * 5]), y=torch.tensor([2] * 4), targeted=True)
    points, found = prepared(data, images=60).find(at)
    assert found.all()
    assert torch.equal(at.victim.function(points), at.y)


def test_without_a_start_an_example_is_left_alone():
    at = problem(lambda x: torch.zeros(len(x), dtype=torch.int64))
    for attack in (HopSkipJump(starting_points=StartingPoints(noise=3)), Boundary()):
        before = at.victim.asked.clone()
        state = attack.start(at)
        assert (at.victim.asked - before).tolist() == [attack.starting_points.noise] * 4
        again = at.victim.asked.clone()
        assert torch.equal(attack.step(at, state).x_adv, at.x)
        assert torch.equal(at.victim.asked, again)


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_the_estimate_is_the_normal_of_a_plane(norm):
    direction = torch.randn(16, generator=torch.Generator().manual_seed(2)).double()
    at = problem(lambda x: ((x.double().flatten(1) - 0.5) @ direction > 0.1).long(), norm=norm)
    attack = HopSkipJump(first_samples=3000)
    on_the_plane = at.x + (0.1 * direction / direction.square().sum()).float().reshape(1, 1, 2, 8)
    state = type(attack.start(at))(on_the_plane, torch.ones(4).bool())
    normal = attack._normal(at, state, torch.full((4,), 1e-3, dtype=torch.float64))
    expected = direction.sign() if norm == "Linf" else direction
    cosine = torch.cosine_similarity(normal.flatten(1).double(), expected[None])
    assert (cosine > (0.75 if norm == "Linf" else 0.98)).all()
    if norm == "Linf":
        assert (normal.abs() == 1).all()


BEST = {
    ("hop-skip-jump", "L2"): (HopSkipJump(steps=20), 1.03),
    ("hop-skip-jump", "Linf"): (HopSkipJump(steps=20), 1.15),
    ("boundary", "L2"): (Boundary(steps=1000), 1.05),
    ("rays", "Linf"): (RayS(steps=300, tolerance=1e-5), 1.05),
}


@pytest.mark.parametrize(("name", "norm"), BEST)
def test_the_distance_on_a_linear_model_is_nearly_the_least(linear, name, norm):
    """The distance to the plane is known."""
    attack, factor = BEST[name, norm]
    least = np.sort(linear.distances[norm])
    result = evaluate(linear.module, linear.images[:12], linear.labels[:12], attack, norm=norm,
                      epsilons=[float(least[0]) * 0.01, 1.0])  # fmt: skip
    ratio = result.records["distance"] / linear.distances[norm][:12]
    assert (ratio > 0.999).all()
    assert ratio.median() < factor


def test_more_queries_bring_it_nearer(digits):
    x, y = digits.images[:12], digits.labels[:12]
    for attack in (HopSkipJump(), Boundary()):
        found = [
            evaluate(digits.module, x, y, attack, norm="L2", epsilons=[1e-3, 8.0],
                     query_budget=budget).records["distance"].median()
            for budget in (100, 250, 600)
        ]  # fmt: skip
        assert found[0] > found[1] > found[2]


def test_it_reaches_target_classes_from_the_attackers_images(digits):
    x, y = digits.images[:20], digits.labels[:20]
    data = in_memory(digits.images[100:], digits.labels[100:], tuple("0123456789"))
    for attack in (HopSkipJump(steps=5), Boundary(steps=200)):
        result = evaluate(digits.module, x, y, attack, norm="L2", epsilons=[3.0],
                          targets=(y + 1) % 10, attacker_images=data)  # fmt: skip
        assert result.curve["attack_success_rate"].item() > 0.9
    with pytest.raises(BadParameter, match="RayS cannot aim"):
        evaluate(digits.module, x, y, RayS(), targets=(y + 1) % 10)


def test_rays_halves_its_blocks_and_keeps_what_brings_the_boundary_nearer():
    weight = torch.tensor([1.0] * 4 + [-1.0] * 12)

    def label(x):
        return ((x.flatten(1) - 0.5) @ weight > 1.0).long()

    at = problem(label, count=2, norm="Linf")
    attack, radii = RayS(tolerance=1e-4), []
    state = attack.start(at)
    for step in range(30):
        at.step = torch.full((2,), step)
        state = attack.step(at, state)
        radii.append(state.radius)
    assert (torch.stack(radii).diff(dim=0)[1:].nan_to_num(0.0) <= 0).all()
    assert torch.equal(state.ray, weight.expand(2, -1))
    assert state.radius.numpy() == pytest.approx(1.0 / 16, abs=3e-5)  # 1e-4 in L2
    assert measure(state.x_adv - at.x, "Linf").numpy() == pytest.approx(1.0 / 16, abs=2e-4)
    assert (label(state.x_adv) == 1).all()


@pytest.mark.parametrize(
    ("kind", "given"),
    [(HopSkipJump, {"steps": 0}), (HopSkipJump, {"precision": 0.0}), (Boundary, {"steps": 0}),
     (Boundary, {"sideways": 1.0}), (RayS, {"tolerance": 0.0}), (RayS, {"steps": 0})],
)  # fmt: skip
def test_parameters_that_make_no_attack_are_refused(kind, given):
    (name,) = given
    with pytest.raises(BadParameter, match=name):
        kind(**given)
    with pytest.raises(BadParameter, match="attempts"):
        StartingPoints(noise=0, images=0)


def test_two_classes_and_one_channel_are_enough():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    x = random_images(5, 1, 1, 3)
    y = module(x).argmax(1)
    for attack in (HopSkipJump(steps=2), Boundary(steps=20), RayS(steps=5)):
        norm = "Linf" if isinstance(attack, RayS) else "L2"
        assert len(evaluate(module, x, y, attack, norm=norm, epsilons=[0.5]).records) == 5
