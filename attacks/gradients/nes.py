"""The gradient of the smoothed loss, from the victim's scores: natural evolution strategies."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...bench.api.attack import Access, Loss, Problem
from ...bench.api.errors import BadParameter
from ..parts.parameters import positive_up_to
from .score_differences import along_random


@dataclass(frozen=True)
class NES:
    """Natural evolution strategies: antithetic Gaussian directions. Score access.

    The mean of (L(x + sigma u) - L(x - sigma u)) u / 2 sigma over normal u, which on a straight
    loss is right on average; with n samples in D coordinates its cosine to the gradient is about
    sqrt(n / (n + 2 D)). Source: Ilyas et al. 2018 (arXiv:1804.08598), algorithm 1. Unlike there,
    probes stop at the border of [0, 1]; 2 sigma is then, for each coordinate, the mean distance
    between probes as the estimate weighs them, so that it stays right on average.

    samples: queries for each gradient, two for each direction.
    sigma: standard deviation of the directions, on the [0, 1] scale.

    A step costs `samples` queries, and one more for the iterate:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd", "steps": 10, "gradient": {"name": "nes", "samples": 20}}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.005], search="exhaustive")
    >>> int(result.records["queries"].max()), int(result.records["backward"].max())
    (210, 0)
    """

    version: ClassVar[str] = "2"
    monotone: ClassVar[bool] = False
    only_around: ClassVar[bool] = True

    samples: int = 50
    sigma: float = 0.001

    def __post_init__(self) -> None:
        if self.samples < 2 or self.samples % 2:
            raise BadParameter(f"samples must be even and at least 2, not {self.samples}")
        positive_up_to(0.5, sigma=self.sigma)

    @property
    def access(self) -> Access:
        """Score."""
        return "score"

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the estimate at x."""
        found = along_random(
            problem, x, loss, self.samples // 2, self.sigma, problem.draws.normal
        ).reshape(x.shape)
        # Stein's lemma: E[u m(u)] = E[m'(u)] for a probe that moves by m(u) = min(sigma u, room).
        scale = 1.0 / (self.sigma * math.sqrt(2.0))
        return found / (self.sigma * ((scale * x).erf() + (scale * (1.0 - x)).erf()))
