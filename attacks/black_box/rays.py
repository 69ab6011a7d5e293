"""RayS."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Problem
from ...bench.api.errors import BadParameter
from ...bench.api.threat import Norm, per_example
from ..parts.boundary_search import among, bisect
from ..parts.parameters import at_least


@dataclass
class RaySState:
    """x_adv: (B, C, H, W). ray: (B, D) of signs. radius: (B,) float64, infinite before any success.

    level, block: (B,) int64: into 2^level blocks, the block whose signs are turned next.
    """

    x_adv: Tensor
    ray: Tensor
    radius: Tensor
    level: Tensor
    block: Tensor


@dataclass(frozen=True)
class RayS:
    """Search the corner of the cube towards which the boundary is nearest; it sees labels only.

    Signs are turned block by block, in ever smaller blocks; a turn is kept, and the radius found
    by bisection, where the point at the present radius stays adversarial. It looks for the nearest
    adversarial point. Source: Chen & Gu 2020 (arXiv:2006.12792), algorithms 1 to 3, with the
    tolerance of the authors' program. The first step asks about the ray of all ones.

    steps: turns tried; each costs one query, and a bisection when it is kept.
    tolerance: of the bisection, in L2: a pixel's is it over the square root of their number.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(
    ...     model, images, labels, "rays", epsilons=[0.025, 0.055], query_budget=500
    ... )
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "2"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf",)
    targetable: ClassVar[bool] = False
    minimum_norm: ClassVar[bool] = True
    stays_in_ball: ClassVar[bool] = False
    asks_iterates: ClassVar[bool] = True

    steps: int = 1000
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        if not 0.0 < self.tolerance < 1.0:
            raise BadParameter(f"tolerance must lie between 0 and 1, not {self.tolerance}")

    @property
    def access(self) -> Access:
        """Decision."""
        return "decision"

    def start(self, problem: Problem) -> RaySState:
        """Begin with the ray of all ones, of which nothing is known."""
        ray = torch.ones_like(problem.x.flatten(1))
        zeros = torch.zeros_like(problem.step)
        radius = torch.full_like(problem.epsilon, torch.inf)
        return RaySState(problem.x, ray, radius, zeros, zeros)

    def step(self, problem: Problem, state: RaySState) -> RaySState:
        """Turn one block of signs; keep it where the boundary is nearer there."""
        x, total = problem.x, state.ray.shape[1]
        size = -(-total // 2**state.level)
        place = torch.arange(total, device=x.device)[None] // size[:, None]
        turned = (place == state.block[:, None]) & (problem.step > 0)[:, None]
        ray = torch.where(turned, -state.ray, state.ray)

        def at(radius: Tensor) -> Tensor:
            move = per_example(radius, x).to(x.dtype) * ray.reshape(x.shape)
            return (x + move).clamp(0.0, 1.0)

        limit = state.radius.clamp(max=1.0)
        hit, _ = among(problem, at(limit), torch.ones_like(problem.warm))
        none = torch.zeros_like(limit)
        tolerance = none + self.tolerance / math.sqrt(total)
        radius = bisect(problem, at, none, limit, tolerance, hit)
        level, block = self._next_block(problem, state, size, total)
        return RaySState(
            torch.where(per_example(hit, x), at(radius), state.x_adv),
            torch.where(hit[:, None], ray, state.ray),
            torch.where(hit, radius, state.radius),
            level,
            block,
        )

    def _next_block(
        self, problem: Problem, state: RaySState, size: Tensor, total: int
    ) -> tuple[Tensor, Tensor]:
        """Level and block (B,) of the next turn: the next block, or the first of half the size."""
        turning = problem.step > 0
        block = state.block + turning
        done = block * size >= total
        finest = size == 1
        return torch.where(done & ~finest, state.level + 1, state.level), block * ~done
