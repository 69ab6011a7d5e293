"""The gradient from random directions, one side at a time: random gradient-free estimation."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Loss, Problem
from ..parts.parameters import at_least, positive_up_to
from .score_differences import along_random_one_sided


@dataclass(frozen=True)
class RGF:
    """Random gradient-free estimate: forward differences along random unit vectors. Score access.

    The mean of (L(x + sigma u) - L(x)) u / sigma over directions u uniform on the sphere; on a
    straight loss in D coordinates its mean is the gradient over D. Source: Nesterov & Spokoiny
    2017; Cheng et al. 2019 (arXiv:1906.06919), equation 3, the form without a transfer prior, with
    its defaults. Unlike there, probes stop at the border of [0, 1], and each coordinate is divided
    by the share of the way that they move in it on average, as if u were normal.

    samples: queries for each gradient: one at x, the others a direction each.
    sigma: how far a probe is from x in a coordinate, on average; in L2 that is sigma times the
        square root of D.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd", "steps": 10, "gradient": {"name": "rgf", "samples": 21}}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.005], search="exhaustive")
    >>> int(result.records["queries"].max()), int(result.records["backward"].max())
    (211, 0)
    """

    monotone: ClassVar[bool] = False

    samples: int = 51
    sigma: float = 1e-4

    def __post_init__(self) -> None:
        at_least(2, samples=self.samples)
        positive_up_to(0.5, sigma=self.sigma)

    @property
    def access(self) -> Access:
        """Score."""
        return "score"

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the estimate at x."""
        total = x[0].numel()
        reach = self.sigma * math.sqrt(total)

        def draw(shape: tuple[int, int], stream: str) -> Tensor:
            directions = problem.draws.normal(shape, stream)
            lengths: Tensor = directions.norm(dim=2, keepdim=True).clamp(min=1e-30)
            return directions / lengths

        found = along_random_one_sided(problem, x, loss, self.samples - 1, reach, draw)
        scale = 1.0 / (self.sigma * math.sqrt(2.0))
        moved = 0.5 * ((scale * x).erf() + (scale * (1.0 - x)).erf())
        return found.reshape(x.shape) / (reach * moved.clamp(min=torch.finfo(x.dtype).tiny))
