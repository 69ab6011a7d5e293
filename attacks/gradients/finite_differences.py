"""The gradient by central finite differences of the victim's scores."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...bench.api.attack import Access, Loss, Problem
from ..parts.parameters import at_least, positive_up_to
from .score_differences import PROBES_AT_ONCE, differences


@dataclass(frozen=True)
class FiniteDifferences:
    """Central differences along pixel axes: two queries a coordinate. Score access.

    (L(x + h e_i) - L(x - h e_i)) / 2h, whose error falls with h squared. Where a probe would leave
    [0, 1] it stops at the border and the quotient is taken over the actual distance, which costs
    one order there. Source: Chen et al. 2017 (arXiv:1708.03999), equation 6, for all coordinates.

    coordinates: how many axes, drawn afresh without replacement for each example and step; the
        gradient is zero along the others. None: all of them.
    spacing: h, on the [0, 1] scale.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> source = {"name": "finite-differences", "coordinates": 4}
    >>> attack = {"name": "pgd", "steps": 10, "gradient": source}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.005], search="exhaustive")
    >>> int(result.records["queries"].max()), int(result.records["backward"].max())
    (81, 0)
    """

    coordinates: int | None = None
    spacing: float = 0.01

    def __post_init__(self) -> None:
        at_least(1, coordinates=self.coordinates)
        positive_up_to(0.5, spacing=self.spacing)

    @property
    def access(self) -> Access:
        """Score."""
        return "score"

    @property
    def monotone(self) -> bool:
        """Whether all of the gradient is seen: what a few coordinates break is partly luck."""
        return self.coordinates is None

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the estimate at x, zero along coordinates that were not drawn."""
        flat = x.flatten(1)
        batch, total = flat.shape
        if self.coordinates is None or self.coordinates >= total:
            axes = torch.arange(total, device=x.device).expand(batch, total)
        else:
            axes = problem.draws.permutation(total, "axes")[:, : self.coordinates]
        estimate = torch.zeros_like(flat)
        for some in axes.split(max(1, PROBES_AT_ONCE // (2 * flat.numel())), dim=1):
            estimate.scatter_(1, some, self._slopes(problem, x, some, loss))
        return estimate.reshape(x.shape)

    def _slopes(self, problem: Problem, x: Tensor, axes: Tensor, loss: Loss) -> Tensor:
        """(B, n): difference quotients along axes (B, n)."""
        flat = x.flatten(1)
        count = axes.shape[1]
        centre = flat.gather(1, axes)
        upper = (centre + self.spacing).clamp(max=1.0)
        lower = (centre - self.spacing).clamp(min=0.0)
        moved = torch.stack([upper, lower], dim=2)
        probes = flat[:, None, None, :].repeat(1, count, 2, 1)
        probes.scatter_(3, axes[:, :, None, None].expand(-1, -1, 2, 1), moved[..., None])
        return (differences(problem, probes, loss) / (upper - lower)).to(x.dtype)
