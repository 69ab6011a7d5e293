"""The adversary inside training: a few quick steps of steepest ascent from a random start."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..bench.random import Draws
from ..bench.threat import Ball, LinfBall, Norm, make_ball
from .method import Batch

_SCALE = 2.0**10  # keeps gradients in float16 from vanishing; no direction of ascent depends on it


@dataclass(frozen=True)
class Adversary:
    """Projected gradient ascent on the cross-entropy from a random start (arXiv:1706.06083).

    With one step of 1.25 it is FGSM with random start (arXiv:2001.03994).

    epsilon: on the [0, 1] scale. step_size: as a part of epsilon.

    The model is in evaluation mode meanwhile, where both papers leave it in training mode: the
    attack then meets the network as it will be used, one network for all steps whatever the
    dropout, and batch statistics are updated once for each batch. Weights gather no gradient.
    """

    norm: Norm
    epsilon: float
    steps: int
    step_size: float

    def perturb(self, model: nn.Module, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """(B, C, H, W): the points reached, in the ball of `scale` times epsilon and in [0, 1]."""
        epsilon = torch.full(
            (len(batch.x),), scale * self.epsilon, dtype=torch.float64, device=batch.x.device
        )
        ball = make_ball(self.norm, batch.x, epsilon)
        x_adv = _random_start(ball, batch)
        step = self.step_size * ball.radius
        with as_used(model), torch.enable_grad():
            for _ in range(self.steps):
                at = x_adv.requires_grad_()
                loss = F.cross_entropy(model(at), batch.y, reduction="sum")
                (gradient,) = torch.autograd.grad(_SCALE * loss, at)
                at = at.detach()
                x_adv = ball.project(at + step * ball.steepest(gradient, at))
        return x_adv


@contextmanager
def as_used(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode and its weights without gradients, for the while."""
    training = model.training
    learning = [one for one in model.parameters() if one.requires_grad]
    model.eval()
    for one in learning:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in learning:
            one.requires_grad_(True)
        model.train(training)


def _random_start(ball: Ball, batch: Batch) -> Tensor:
    """A random point of the ball. The cube needs no counter-based numbers, which are slower."""
    if isinstance(ball, LinfBall):
        noise = torch.rand(batch.x.shape, generator=batch.generator, device=batch.x.device)
        return ball.project(batch.x + ball.radius * (2.0 * noise - 1.0))
    device = batch.x.device
    example = torch.arange(len(batch.x), device=device)
    seed = torch.randint(2**32, (1,), generator=batch.generator, device=device)
    return ball.random(Draws(0, example, seed.expand_as(example), torch.zeros_like(example)))
