"""The gradient by simultaneous perturbation of all coordinates, from the victim's scores."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...bench.api.attack import Access, Loss, Problem
from ...bench.api.errors import BadParameter
from ..parts.parameters import positive_up_to
from .score_differences import along_random


@dataclass(frozen=True)
class SPSA:
    """Simultaneous perturbation: directions of random signs. Score access.

    The mean of (L(x + delta s) - L(x - delta s)) s / 2 delta over signs s, which on a straight loss
    is right on average; with n samples in D coordinates its cosine to the gradient is about
    sqrt(n / (n + 2 D)). Source: Spall 1992; Uesato et al. 2018 (arXiv:1802.05666), section 3.3.
    Unlike there, probes stop at the border of [0, 1], and the quotient of each coordinate is taken
    over the distance that it moved, so that it stays right on average.

    samples: queries for each gradient, two for each direction.
    delta: how far each coordinate is moved, on the [0, 1] scale.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd", "steps": 10, "gradient": {"name": "spsa", "samples": 20}}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.005], search="exhaustive")
    >>> int(result.records["queries"].max()), int(result.records["backward"].max())
    (210, 0)
    """

    version: ClassVar[str] = "2"
    monotone: ClassVar[bool] = False
    only_around: ClassVar[bool] = True

    samples: int = 128
    delta: float = 0.01

    def __post_init__(self) -> None:
        if self.samples < 2 or self.samples % 2:
            raise BadParameter(f"samples must be even and at least 2, not {self.samples}")
        positive_up_to(0.5, delta=self.delta)

    @property
    def access(self) -> Access:
        """Score."""
        return "score"

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the estimate at x."""
        found = along_random(problem, x, loss, self.samples // 2, self.delta, problem.draws.signs)
        moved = (x + self.delta).clamp(max=1.0) - (x - self.delta).clamp(min=0.0)
        return found.reshape(x.shape) / moved
