"""The decision boundary near a point, as the victim's linearisation there shows it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...bench.api.attack import Problem
from ...bench.api.errors import CellError
from ...bench.api.threat import Norm, measure, per_example
from .losses import Margin

DUAL: dict[Norm, Norm] = {"Linf": "L1", "L2": "L2", "L1": "Linf"}
_TINY = 1e-300


@dataclass
class Plane:
    """Where gap + <normal, z - x> = 0, for points z near x; the attack's goal lies where it is > 0.

    normal: (N, C, H, W). gap: (N,) float64, at x. distance: (N,) float64, from x to the plane in
    the ball's norm, the box left aside; infinite where the network is flat, and there is none.
    margin: (N,) of the logits at x: positive exactly when x is adversarial, whichever class the
    plane is of.
    """

    normal: Tensor
    gap: Tensor
    distance: Tensor
    margin: Tensor


def nearest_plane(
    problem: Problem, x: Tensor, classes: Tensor, rows: Tensor | None = None
) -> Plane:
    """The nearest of the planes between the label and some other classes.

    One forward pass, and a backward pass for each class; one at a time, so that memory does not
    grow with the classes. When targeted, the one plane between the target and the best other class.

    x: (N, C, H, W). classes: (N, M) int64. rows: (N,), the examples that they belong to; all.

    Raises: CellError when the model cannot be differentiated.
    """
    y = problem.y if rows is None else problem.y[rows]
    point = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = problem.victim.differentiable(point, rows)
        if not logits.requires_grad:
            raise CellError("the model cannot be differentiated: its logits carry no gradient")
        margin = Margin()(logits, y, targeted=problem.targeted)
        if problem.targeted:
            gaps = margin[:, None]
        else:
            gaps = logits.gather(1, classes) - logits.gather(1, y[:, None])
    best: Plane | None = None
    for number in range(gaps.shape[1]):
        more = number + 1 < gaps.shape[1]
        (normal,) = torch.autograd.grad(gaps[:, number].sum(), point, retain_graph=more)
        gap = gaps[:, number].detach().double()
        slope = measure(normal, DUAL[problem.ball.norm])
        distance = torch.where(slope > 0, gap.abs() / slope.clamp(min=_TINY), torch.inf)
        plane = Plane(normal, gap, distance, margin.detach())
        best = plane if best is None else _nearer(best, plane)
    assert best is not None
    return best


def _nearer(one: Plane, other: Plane) -> Plane:
    """Of each row, the nearer of two planes."""
    taken = other.distance < one.distance
    normal = torch.where(per_example(taken, one.normal), other.normal, one.normal)
    gap = torch.where(taken, other.gap, one.gap)
    return Plane(normal, gap, one.distance.minimum(other.distance), one.margin)


def ranked_classes(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """(B, M) int64: the classes other than y by their logits, largest first, `count` at most.

    The first stands in for those whose logit is -inf, which there is no way to.
    """
    others = logits.scatter(1, y[:, None], -torch.inf)
    values, order = others.sort(dim=1, descending=True, stable=True)
    order = torch.where(values > -torch.inf, order, order[:, :1])
    return order[:, : min(count, logits.shape[1] - 1)]
