"""The gradient by central differences along the directions of a basis."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Basis, Loss, Problem
from ..parts.parameters import at_least, positive_up_to
from .bases import RandomGroups
from .score_differences import PROBES_AT_ONCE, differences


@dataclass(frozen=True)
class DirectionalDifferences:
    """Central differences along the directions of a basis: two queries each. Score access.

    The sum over the basis of its unit vectors times the slopes along them: on an orthonormal basis
    the gradient's projection on what was drawn. Source: Bhagoji et al. 2018 (arXiv:1712.09491),
    section 3.3. Probes stop at the border of [0, 1], and a slope is taken over the distance that
    they then are apart along the direction.

    basis: the directions. directions: how many of them, drawn afresh without replacement for each
    example and step; None: all. spacing: how far a probe is from x, in L2, on the [0, 1] scale.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> source = {"name": "directional-differences", "basis": "pixels", "directions": 8}
    >>> attack = {"name": "pgd", "steps": 30, "gradient": source}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.9, 0.6]
    """

    monotone: ClassVar[bool] = False
    only_around: ClassVar[bool] = True

    basis: Basis = RandomGroups()
    directions: int | None = None
    spacing: float = 0.05

    def __post_init__(self) -> None:
        at_least(1, directions=self.directions)
        positive_up_to(1.0, spacing=self.spacing)

    @property
    def access(self) -> Access:
        """Score."""
        return "score"

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the estimate at x, in the span of the directions drawn."""
        flat = x.flatten(1)
        batch, count = len(x), self.basis.count(problem)
        if self.directions is None or self.directions >= count:
            numbers = torch.arange(count, device=x.device).expand(batch, count)
        else:
            numbers = problem.draws.permutation(count, "directions")[:, : self.directions]
        estimate = torch.zeros_like(flat)
        for some in numbers.split(max(1, PROBES_AT_ONCE // (2 * flat.numel())), dim=1):
            vectors = self.basis.vectors(problem, some)
            upper = (flat[:, None] + self.spacing * vectors).clamp(0.0, 1.0)
            lower = (flat[:, None] - self.spacing * vectors).clamp(0.0, 1.0)
            gaps = differences(problem, torch.stack([upper, lower], dim=2), loss)
            apart = (vectors * (upper - lower)).double().sum(dim=2)
            weighted = vectors * (gaps / apart).to(x.dtype)[..., None]
            for one in weighted.unbind(dim=1):  # in this order, however many are asked together
                estimate += one
        return estimate.reshape(x.shape)
