"""Distances to boundaries that are known: planes and balls."""

import math

import pytest
import torch
from torch import nn

from quintain.bench.api.errors import BadData, BadParameter
from quintain.models.explain.boundary import (
    BoundaryDistances,
    boundary_distances,
    directions_to_other_classes,
    random_directions,
)


class Ball(nn.Module):
    """Class 1 outside a ball around the centre of the box."""

    def __init__(self, radius):
        super().__init__()
        self.radius = radius

    def forward(self, x):
        away = (x - 0.5).flatten(1).norm(dim=1) - self.radius
        return torch.stack([-away, away], dim=1)


def test_along_the_normal_of_a_plane_it_is_the_distance_to_it(linear):
    weight = linear.module[1].weight[1] - linear.module[1].weight[0]
    sides = torch.where(linear.labels == 1, -1.0, 1.0)
    normal = sides[:, None] * weight.detach()
    found = boundary_distances(linear.module, linear.images, normal.reshape(-1, 1, 4, 4))
    expected = torch.from_numpy(linear.distances["L2"]).float()
    torch.testing.assert_close(found.distance, expected, rtol=1e-4, atol=1e-5)
    assert not found.censored.any()
    assert torch.equal(found.reached, 1 - linear.labels)
    away = boundary_distances(linear.module, linear.images, -normal.reshape(-1, 1, 4, 4))
    assert away.censored.all()
    assert (away.reached == -1).all()
    assert away.median == math.inf
    # the box ends where each pixel has met its wall
    walls = (normal < 0).float().reshape(-1, 1, 4, 4)
    expected = (walls - linear.images).flatten(1).norm(dim=1)
    torch.testing.assert_close(away.distance, expected)


def test_along_an_oblique_direction_it_is_the_distance_over_the_cosine(linear):
    weight = (linear.module[1].weight[1] - linear.module[1].weight[0]).detach()
    directions = random_directions(linear.images, seed=2)
    cosines = directions.flatten(1) @ weight / weight.norm()
    towards = torch.where(linear.labels == 1, -cosines, cosines)
    expected = torch.from_numpy(linear.distances["L2"]).float() / towards
    inside = (towards > 0) & (expected * directions.flatten(1).abs().amax(dim=1) < 0.44)
    assert inside.sum() > 10
    found = boundary_distances(linear.module, linear.images, 5.0 * directions)
    torch.testing.assert_close(found.distance[inside], expected[inside], rtol=1e-3, atol=1e-5)


def test_in_a_ball_every_direction_is_as_far_and_batches_change_nothing():
    x = torch.full((20, 3, 8, 8), 0.5)
    found = boundary_distances(Ball(2.0), x, random_directions(x))
    torch.testing.assert_close(found.distance, torch.full((20,), 2.0), rtol=1e-4, atol=0)
    again = boundary_distances(Ball(2.0), x, random_directions(x), batch_size=7)
    assert torch.equal(found.distance, again.distance)
    assert found.median == pytest.approx(2.0, rel=1e-4)
    never = boundary_distances(Ball(100.0), x, random_directions(x))
    assert never.censored.all()
    torch.testing.assert_close(never.distance, torch.full((20,), 0.5 * 192**0.5))


def test_pixels_at_the_wall_stay_there_and_the_others_go_on():
    x = torch.tensor([1.0, 0.2]).reshape(1, 1, 1, 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
        model[1].bias.copy_(torch.tensor([0.7, 0.0]))
    found = boundary_distances(model, x, torch.ones(1, 1, 1, 2))
    assert float(found.distance) == pytest.approx(0.5, rel=1e-4)


def test_the_median_counts_censored_images_as_farther():
    def median(distances, censored):
        reached = torch.zeros(len(distances), dtype=torch.int64)
        return BoundaryDistances(
            torch.tensor(distances), torch.tensor(censored), reached
        ).median  # fmt: skip

    assert median([3.0, 1.0, 2.0], [False] * 3) == 2.0
    assert median([3.0, 1.0, 2.0, 4.0], [False] * 4) == 2.5
    assert median([3.0, 1.0, 0.5], [False, False, True]) == 3.0
    assert median([3.0, 1.0], [False, True]) == math.inf
    assert median([3.0, 1.0, 0.5], [False, True, True]) == math.inf


def test_directions_to_other_classes_lead_to_the_nearest_that_has_one():
    x = torch.rand(5, 1, 3, 3)
    others = torch.cat([x + 0.01, x + 0.1, x + 0.2]).clamp(max=1.0)
    classes = torch.arange(5) % 2
    other_classes = torch.cat([classes, 1 - classes, 1 - classes])
    found = directions_to_other_classes(x, classes, others, other_classes)
    targets = x + found
    for row in range(5):
        candidates = others[other_classes != classes[row]]
        nearest = (candidates - x[row]).flatten(1).norm(dim=1).min()
        torch.testing.assert_close(found[row].norm(), nearest)
        assert any(torch.allclose(targets[row], one) for one in candidates)
    with pytest.raises(BadParameter, match="no image of another class"):
        directions_to_other_classes(x, torch.zeros(5), others, torch.zeros(15))


def test_random_directions_are_of_length_one_uniform_and_an_images_own():
    x = torch.zeros(500, 1, 4, 4)
    directions = random_directions(x)
    torch.testing.assert_close(directions.flatten(1).norm(dim=1), torch.ones(500))
    assert directions.mean(dim=0).abs().max() < 0.05
    assert torch.equal(directions[:3], random_directions(x[:3]))


@pytest.mark.parametrize(
    ("x", "directions", "said"),
    [
        (torch.rand(2, 1, 2, 2), torch.rand(1, 1, 2, 2), "directions"),
        (torch.rand(2, 1, 2, 2) + 1.0, torch.rand(2, 1, 2, 2), r"\[0, 1\]"),
        (torch.rand(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), "length zero"),
    ],
)
def test_bad_input_is_refused(x, directions, said):
    with pytest.raises(BadData, match=said):
        boundary_distances(Ball(1.0), x, directions)
