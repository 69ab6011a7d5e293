"""What an adversary may do: the norm, the ball, and the geometry that attacks need of it.

Everything here takes one epsilon per example. Points that come out of a projection lie inside the
ball and inside [0, 1] exactly: a check in float64 with no tolerance passes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from .epsilon import NORMS, Epsilon, Norm, check_radii, parse_grid
from .rng import Draws

__all__ = [
    "NORMS",
    "Ball",
    "Epsilon",
    "L1Ball",
    "L2Ball",
    "LinfBall",
    "Norm",
    "check_radii",
    "make_ball",
    "measure",
    "parse_grid",
    "per_example",
    "round_inwards",
]

_TINY = 1e-30
PIXELS_AT_ONCE = 1 << 15  # pixels whose float64 copies a processor's cache holds
_INWARDS = 1.0 - 1e-12  # outweighs the rounding of a float64 sum of a million terms


def measure(delta: Tensor, norm: Norm, dtype: torch.dtype = torch.float64) -> Tensor:
    """(B,): the norm of each perturbation (B, ...), summed in `dtype`.

    >>> import torch
    >>> from quintain.bench.api.threat import measure
    >>> delta = torch.tensor([[[[0.3, -0.4]]]])
    >>> {norm: round(measure(delta, norm).item(), 4) for norm in ("Linf", "L2", "L1")}
    {'Linf': 0.4, 'L2': 0.5, 'L1': 0.7}
    """
    flat = delta.to(dtype).flatten(1)
    match norm:
        case "Linf":
            return flat.abs().amax(dim=1)
        case "L2":
            return flat.square().sum(dim=1).sqrt()
        case "L1":
            return flat.abs().sum(dim=1)


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, ...) with as many axes as `like`, for broadcasting.

    >>> import torch
    >>> from quintain.bench.api.threat import per_example
    >>> images = torch.ones(2, 1, 2, 2)
    >>> (per_example(torch.tensor([0.5, 2.0]), images) * images).flatten(1)
    tensor([[0.5000, 0.5000, 0.5000, 0.5000],
            [2.0000, 2.0000, 2.0000, 2.0000]])
    """
    return values.reshape(-1, *[1] * (like.dim() - 1))


def round_inwards(x: Tensor, delta: Tensor) -> Tensor:
    """x + delta, float64, in x's dtype, each coordinate rounded towards x: none moves further.

    The measure is delta itself: x + delta has been rounded once already, in float64.
    """
    exact = x.double()
    rounded = (exact + delta).to(x.dtype)
    outside = (rounded.double() - exact).abs() > delta.abs()
    return torch.where(outside, torch.nextafter(rounded, x), rounded)


@dataclass
class Ball(ABC):
    """The points that an adversary may reach: within epsilon of x in one norm, and in [0, 1].

    x: (B, C, H, W) float32 in [0, 1], the clean images.
    epsilon: (B,) float64.
    step_multiplier: (B,) float64, how much longer than usual the steps are that an attack takes in
    the ball.

    >>> import torch
    >>> from quintain.bench.api.threat import make_ball
    >>> x = torch.tensor([[[[0.5, 0.9]]]])
    >>> ball = make_ball("Linf", x, torch.tensor([0.2]))
    >>> ball.project(torch.tensor([[[[0.0, 1.0]]]]))  # no further than 0.2, and not beyond 1
    tensor([[[[0.3000, 1.0000]]]])
    >>> ball.steepest(torch.tensor([[[[-3.0, 0.1]]]]), x)
    tensor([[[[-1.,  1.]]]])
    >>> ball.contains(ball.project(torch.rand(1, 1, 1, 2)))
    tensor([True])
    """

    norm: ClassVar[Norm]
    x: Tensor
    epsilon: Tensor
    step_multiplier: Tensor

    @classmethod
    def around(cls, x: Tensor, epsilon: Tensor) -> Self:
        """Make the ball of each example."""
        radii = epsilon.to(device=x.device, dtype=torch.float64)
        return cls(x, radii, torch.ones_like(radii))

    @property
    def radius(self) -> Tensor:
        """(B, 1, 1, 1) in x's dtype: epsilon times the step multiplier, to scale a step with."""
        return per_example(self.epsilon * self.step_multiplier, self.x).to(self.x.dtype)

    @abstractmethod
    def project(self, points: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, inside the ball and inside [0, 1], rounded inwards."""

    @abstractmethod
    def steepest(self, gradient: Tensor, points: Tensor) -> Tensor:
        """(B, C, H, W): the direction of unit norm along which the loss rises fastest."""

    @abstractmethod
    def random(self, draws: Draws) -> Tensor:
        """(B, C, H, W): a random point of the ball, uniform before clipping to [0, 1]."""

    def contains(self, points: Tensor) -> Tensor:
        """(B,) bool: inside the ball and [0, 1], in float64 with zero tolerance."""
        inside = ((points >= 0) & (points <= 1)).flatten(1).all(dim=1)
        return inside & (measure(points.double() - self.x.double(), self.norm) <= self.epsilon)


@dataclass
class LinfBall(Ball):
    """The cube of half-width epsilon around x, cut by [0, 1]: from lower to upper."""

    norm = "Linf"
    lower: Tensor
    upper: Tensor

    @classmethod
    def around(cls, x: Tensor, epsilon: Tensor) -> Self:
        """Make the bounds once, so that a projection is one pass."""
        radii = epsilon.to(device=x.device, dtype=torch.float64)
        rows = max(1, len(x))
        if x.device.type == "cpu":
            rows = max(1, PIXELS_AT_ONCE // max(1, x[:1].numel()))
        parts = [_linf_bounds(*part) for part in zip(x.split(rows), radii.split(rows), strict=True)]
        lower, upper = (torch.cat(side) for side in zip(*parts, strict=True))
        return cls(x, radii, torch.ones_like(radii), lower, upper)

    def project(self, points: Tensor) -> Tensor:
        """Clip each coordinate: the exact projection."""
        return points.clamp(self.lower, self.upper)

    def steepest(self, gradient: Tensor, points: Tensor) -> Tensor:
        """Sign of the gradient; NaN, whose sign would be 0, stays NaN, and so does infinity."""
        return gradient.sign().add_(gradient, alpha=0)

    def random(self, draws: Draws) -> Tensor:
        """Every coordinate uniform over [-epsilon, epsilon]."""
        noise = 2.0 * draws.uniform(self.x.shape[1:], "start") - 1.0
        return self.project(self.x + self.radius * noise)


def unit(direction: Tensor) -> Tensor:
    """(B, C, H, W) over its Euclidean length; zero where it is zero."""
    largest = direction.abs().flatten(1).amax(dim=1).clamp(min=_TINY)
    scaled = direction / per_example(largest, direction)  # the squares of 1e-30 would vanish
    length = scaled.flatten(1).norm(dim=1).clamp(min=_TINY)
    return scaled / per_example(length, direction)


def _linf_bounds(x: Tensor, radii: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper ends of the cube around x, within [0, 1]."""
    exact, width = x.double(), per_example(radii, x)
    lower = round_inwards(x, -exact.minimum(width))
    return lower, round_inwards(x, (1.0 - exact).minimum(width))


class L2Ball(Ball):
    """The Euclidean ball of radius epsilon around x.

    >>> import torch
    >>> from quintain.bench.api.threat import make_ball
    >>> x = torch.full((1, 1, 1, 2), 0.5)
    >>> ball = make_ball("L2", x, torch.tensor([0.25]))
    >>> ball.project(torch.tensor([[[[0.8, 0.9]]]]))
    tensor([[[[0.6500, 0.7000]]]])
    """

    norm = "L2"

    def project(self, points: Tensor) -> Tensor:
        """Scale back to the sphere, then clip to [0, 1], which brings no coordinate away from x.

        Not the nearest point of the intersection where the box cuts the sphere, as is usual.
        """
        exact = self.x.double()
        delta = points.double() - exact
        length = measure(delta, "L2").clamp(min=_TINY)
        scale = (self.epsilon * _INWARDS / length).clamp(max=1.0)
        delta = delta * per_example(scale, delta)
        return round_inwards(self.x, delta.maximum(-exact).minimum(1.0 - exact))

    def steepest(self, gradient: Tensor, points: Tensor) -> Tensor:
        """Return the gradient over its length; zero where the gradient is zero."""
        return unit(gradient)

    def random(self, draws: Draws) -> Tensor:
        """Uniform over the ball: a normal direction, a radius by the d-th root."""
        shape = self.x.shape[1:]
        direction = self.steepest(draws.normal(shape, "start"), self.x)
        radius = draws.uniform((1,), "radius").pow(1.0 / shape.numel())
        return self.project(self.x + self.radius * per_example(radius[:, 0], self.x) * direction)


class L1Ball(Ball):
    """The cross-polytope of radius epsilon around x.

    share: the part of the coordinates that one steepest step moves, in the manner of SLIDE
    (Tramer & Boneh 2019, arXiv:1904.13000), whose program moves 1%. That finds a little more in
    many steps (docs/measurements/attacks.md), but a single step of it, such as FGSM's, would move
    one pixel of a small image, and [0, 1] limits that move. Coordinates that cannot move within
    [0, 1] do not count.

    The nearest point, not the scaled one: the smaller move is gone.
    >>> import torch
    >>> from quintain.bench.api.threat import make_ball
    >>> x = torch.full((1, 1, 1, 2), 0.5)
    >>> ball = make_ball("L1", x, torch.tensor([0.25]))
    >>> ball.project(torch.tensor([[[[0.6, 0.9]]]]))
    tensor([[[[0.5000, 0.7500]]]])
    """

    norm = "L1"
    share: ClassVar[float] = 0.05

    def project(self, points: Tensor) -> Tensor:
        """Nearest point of the ball's intersection with [0, 1] (Croce & Hein 2021, Prop. 2.1).

        The solution is `clip(|delta| - threshold, 0, room)`, whose sum falls piecewise linearly
        with the threshold: sort its break points, find the piece, solve in it.
        """
        exact = self.x.double().flatten(1)
        delta = points.double().flatten(1) - exact
        size = delta.abs()
        room = torch.where(delta > 0, 1.0 - exact, exact)
        budget = self.epsilon * _INWARDS
        threshold = _l1_threshold(size, room, budget)
        moved = (size - threshold[:, None]).clamp(min=0.0).minimum(room)
        total = moved.sum(dim=1).clamp(min=_TINY)  # off by the rounding of the threshold
        moved = moved * (budget / total).clamp(max=1.0)[:, None]
        return round_inwards(self.x, (delta.sign() * moved).reshape(self.x.shape))

    def steepest(self, gradient: Tensor, points: Tensor) -> Tensor:
        """Equal moves along the largest coordinates that the box leaves free, L1 norm 1."""
        flat, at = gradient.flatten(1), points.flatten(1)
        blocked = ((flat > 0) & (at >= 1.0)) | ((flat < 0) & (at <= 0.0))
        free = flat.abs().masked_fill(blocked, 0.0)
        count = max(1, round(self.share * flat.shape[1]))
        chosen = torch.zeros_like(flat).scatter(1, free.topk(count, dim=1).indices, 1.0)
        direction = flat.sign() * chosen * (free > 0)
        direction = direction / direction.abs().sum(dim=1, keepdim=True).clamp(min=1.0)
        return direction.add(flat, alpha=0).reshape(gradient.shape)  # NaN stays NaN

    def random(self, draws: Draws) -> Tensor:
        """Uniform over the ball: exponential sizes over their sum with one more, random signs."""
        shape = self.x.shape[1:]
        count = shape.numel()
        sizes = -(1.0 - draws.uniform((count + 1,), "start")).log()
        signs = torch.where(draws.uniform((count,), "signs") < 0.5, -1.0, 1.0)
        delta = signs * sizes[:, :count] / sizes.sum(dim=1, keepdim=True).clamp(min=_TINY)
        return self.project(self.x + self.radius * delta.reshape(-1, *shape))


def _l1_threshold(size: Tensor, room: Tensor, budget: Tensor) -> Tensor:
    """(B,): the smallest t >= 0 with sum(clip(size - t, 0, room)) <= budget; rows of (B, D)."""
    breaks = torch.cat([size, (size - room).clamp(min=0.0)], dim=1)
    slopes = torch.cat([torch.ones_like(size), -torch.ones_like(size)], dim=1)
    breaks, order = breaks.sort(dim=1, descending=True)
    slopes = slopes.gather(1, order).cumsum(dim=1)  # how fast the sum grows below each break
    gaps = breaks - torch.cat([breaks[:, 1:], torch.zeros_like(breaks[:, :1])], dim=1)
    sums = (slopes * gaps).cumsum(dim=1)  # the sum at the lower end of each piece
    piece = (sums <= budget[:, None]).sum(dim=1)
    inside = piece < sums.shape[1]
    piece = piece.clamp(max=sums.shape[1] - 1)[:, None]
    before = (sums.gather(1, piece) - slopes.gather(1, piece) * gaps.gather(1, piece))[:, 0]
    slope = slopes.gather(1, piece)[:, 0].clamp(min=1.0)
    threshold = breaks.gather(1, piece)[:, 0] - (budget - before) / slope
    return torch.where(inside, threshold.clamp(min=0.0), torch.zeros_like(threshold))


_BALLS: dict[Norm, type[Ball]] = {"Linf": LinfBall, "L2": L2Ball, "L1": L1Ball}


def make_ball(norm: Norm, x: Tensor, epsilon: Tensor) -> Ball:
    """The ball of one norm around x (B, C, H, W) with one radius for each example (B,).

    Raises: ValueError for an unknown norm.
    """
    if norm not in _BALLS:
        raise ValueError(f"norm {norm!r} is not one of {', '.join(NORMS)}")
    return _BALLS[norm].around(x, epsilon)
