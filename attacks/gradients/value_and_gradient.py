"""The loss beside its gradient, from any gradient source."""

from torch import Tensor

from ...bench.api.attack import GradientSource, Loss, Problem


def valued(
    source: GradientSource, problem: Problem, x: Tensor, loss: Loss
) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) and (B,): the gradient of the loss at x, and the loss there.

    From a source's method `valued(problem, x, loss)` where it has one; else the victim is asked for
    its scores, one query more.
    """
    if hasattr(source, "valued"):
        found: tuple[Tensor, Tensor] = source.valued(problem, x, loss)
        return found
    gradient = source(problem, x, loss)
    return gradient, loss(problem.victim.scores(x), problem.y, targeted=problem.targeted)
