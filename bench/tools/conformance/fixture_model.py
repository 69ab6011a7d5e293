"""The proving ground: a small network on scikit-learn's digits, trained in a second or two."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...api import registry
from ...api.data import ImageData
from ...api.rng import Draws
from ...api.threat import Norm, make_ball
from ...datasets.in_memory import fingerprint, select
from ...victim.decision import fooled

EXAMPLES = 24
NOISE_DRAWS = 25
_PATH = 2.5  # in epsilons, of all steps of a descent
GRIDS: Mapping[Norm, tuple[float, ...]] = {
    "Linf": (0.1, 0.15, 0.2),
    "L2": (0.5, 0.75, 1.0),
    "L1": (1.0, 1.5, 2.0),
}
TARGETED_GRIDS: Mapping[Norm, tuple[float, ...]] = {
    "Linf": (0.15, 0.3),
    "L2": (0.75, 1.5),
    "L1": (1.5, 3.0),
}
# Where hardly an example can be broken, so that an attack has to go as far as it may.
SMALL_GRIDS: Mapping[Norm, tuple[float, ...]] = {"Linf": (0.02,), "L2": (0.1,), "L1": (0.2,)}
_OWNED = 400  # images that the attacker has

_proxies: dict[str, nn.Module] = {}


@dataclass(frozen=True, eq=False)
class FixtureModel:
    """A trained network and images that it classifies correctly.

    network: takes (B, 1, 8, 8); has batch normalisation and dropout, so that its mode matters.
    images: (EXAMPLES, 1, 8, 8). labels: (EXAMPLES,). owned: what an attacker may show the victim.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    owned: ImageData

    @property
    def targets(self) -> Tensor:
        """(EXAMPLES,): a wrong class for each example."""
        return (self.labels + 1) % 10

    def noise(self, norm: Norm, epsilon: float, *, targeted: bool) -> int:
        """How many examples fall to the best of NOISE_DRAWS random points of norm epsilon."""
        count = len(self.images)
        ball = make_ball(norm, self.images, torch.full((count,), epsilon))
        goals = self.targets if targeted else self.labels
        broken = torch.zeros(count, dtype=torch.bool)
        zeros = torch.zeros(count, dtype=torch.int64)
        for number in range(NOISE_DRAWS):
            draws = Draws(0, torch.arange(count), zeros, zeros + number)
            delta = ball.random(draws) - self.images
            far = delta.sign() if norm == "Linf" else delta * 1e3  # to the edge of the ball
            with torch.no_grad():
                logits = self.network(ball.project(self.images + far))
            broken |= fooled(logits, goals, targeted=targeted)
        return int(broken.sum())

    def descent(self, norm: Norm, epsilon: float, steps: int) -> int:
        """How many examples fall to plain projected gradient steps, from the clean image.

        Source: Madry et al. 2018 (arXiv:1706.06083), without a random start.
        """
        count = len(self.images)
        ball = make_ball(norm, self.images, torch.full((count,), epsilon))
        broken = torch.zeros(count, dtype=torch.bool)
        size = ball.radius * min(1.0, _PATH / steps)
        points = self.images
        for _ in range(steps):
            x = points.detach().requires_grad_()
            loss = cross_entropy(self.network(x), self.labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            points = ball.project(points + size * ball.steepest(gradient, points))
            with torch.no_grad():
                broken |= fooled(self.network(points), self.labels, targeted=False)
        return int(broken.sum())


@cache
def fixture_model() -> FixtureModel:
    """Train the network once a process; the same on every call."""
    digits = registry.build("datasets", {"name": "digits", "size": 8})
    train, test = digits.load("train"), digits.load("test")
    network = _trained(train, epochs=8)
    x = test.images.read(torch.arange(len(test)))
    with torch.no_grad():
        right = (network(x).argmax(1) == test.labels).nonzero().flatten()[:EXAMPLES]
    owned = select(train, torch.arange(_OWNED))
    return FixtureModel(network, x[right], test.labels[right], owned)


def train_stand_in(
    model: Mapping[str, Any], data: ImageData, parameters: Mapping[str, Any]
) -> nn.Module:
    """Train the ground's own small network in place of the architecture that an attack asks for."""
    key = fingerprint(data)
    if key not in _proxies:
        _proxies[key] = _trained(data, epochs=12)
    return _proxies[key]


def _trained(data: ImageData, epochs: int) -> nn.Module:
    images, labels = data.images.read(torch.arange(len(data))), data.labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(256, 10),
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                cross_entropy(network(images[rows]), labels[rows]).backward()
                optimizer.step()
    return network.eval()
