"""DeepFool."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Problem
from ...bench.api.threat import Norm, per_example
from ..parts.linearised import Plane, nearest_plane, ranked_classes
from ..parts.parameters import at_least

_FARTHEST = 1e6  # of any length, in any norm, that matters within [0, 1]
_BEYOND = 1e-4  # of a way's length: where the box holds coordinates back it would never arrive


@dataclass
class DeepFoolState:
    """x_adv: (B, C, H, W), the iterate.

    total: (B, C, H, W), what it has moved by without the overshoot. done: (B,) bool, adversarial.
    classes: (B, M), whose boundaries are looked at.
    """

    x_adv: Tensor
    total: Tensor
    done: Tensor
    classes: Tensor


@dataclass(frozen=True)
class DeepFool:
    """DeepFool: go to the nearest boundary of the linearised network, again and again.

    Source: Moosavi-Dezfooli et al. 2016 (arXiv:1511.04599), algorithm 2 (L2) and section 3.3
    (Linf). As in the authors' code, each way is longer by 1e-4 than to the plane, and the network
    is linearised at the iterate with the overshoot, which is where the attack asks whether it is
    through. Each iterate is clipped to [0, 1]. An example that is through asks nothing more. Aimed
    at a class, it goes to the boundary between that class and the best other one; the paper does
    not aim. Where the network is flat there is nowhere to go, and the example stays.

    Checked against Foolbox, adv-lib, and known distances on small networks.

    One query to begin with, then one a step, with a backward pass for each class looked at.

    steps: most steps. classes: how many other classes are looked at, those of the largest logits at
    the clean image. overshoot: part of the way by which it is prolonged.

    On a linear model one step finds the nearest boundary, here in Linf:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(model, images, labels, "deepfool", epsilons=[0.2])
    >>> result.records["distance"].round(2).tolist()
    [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1]
    """

    version: ClassVar[str] = "2"
    access: ClassVar[Access] = "white-box"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    stays_in_ball: ClassVar[bool] = False
    minimum_norm: ClassVar[bool] = True

    steps: int = 50
    classes: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, classes=self.classes)
        at_least(0, overshoot=self.overshoot)

    def start(self, problem: Problem) -> DeepFoolState:
        """Rank the classes at the clean image."""
        logits = problem.victim.scores(problem.x)
        classes = ranked_classes(logits, problem.y, self.classes)
        done = torch.zeros_like(problem.y, dtype=torch.bool)
        return DeepFoolState(problem.x, torch.zeros_like(problem.x), done, classes)

    def step(self, problem: Problem, state: DeepFoolState) -> DeepFoolState:
        """Move the examples that are not through to the nearest plane."""
        rows = (~state.done).nonzero().flatten()
        if not len(rows):
            return state
        plane = nearest_plane(problem, state.x_adv[rows], state.classes[rows], rows)
        through = state.done.index_copy(0, rows, plane.margin > 0)
        total = state.total.index_add(0, rows, self._way(problem, plane, rows))
        x_adv = (problem.x + (1.0 + self.overshoot) * total).clamp(0.0, 1.0)
        stays = per_example(through, x_adv)
        return replace(
            state,
            x_adv=torch.where(stays, state.x_adv, x_adv),
            total=torch.where(stays, state.total, total),
            done=through,
        )

    def _way(self, problem: Problem, plane: Plane, rows: Tensor) -> Tensor:
        """(n, C, H, W): the shortest way to just beyond the plane, without regard to the box."""
        distance = plane.distance.clamp(max=_FARTHEST) + _BEYOND
        distance = per_example(distance, plane.normal).to(plane.normal.dtype)
        return distance * problem.ball.steepest(plane.normal, problem.x[rows])
