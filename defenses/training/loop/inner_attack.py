"""The adversary inside training: a few quick steps of steepest ascent from a random start."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ....bench.api.rng import Draws
from ....bench.api.threat import Ball, LinfBall, Norm, make_ball
from .objective import Batch

_NEAR = 0.001  # on the [0, 1] scale, as TRADES and MART have it for every epsilon
GRADIENT_SCALE = (
    2.0**10
)  # keeps gradients in float16 from vanishing; no direction of ascent depends on it

Start = Callable[[Ball, Batch], Tensor]
Goal = Callable[[nn.Module, Batch], Callable[[Tensor], Tensor]]


def anywhere(ball: Ball, batch: Batch) -> Tensor:
    """A random point of the ball. The cube needs no counter-based numbers, which are slower."""
    device = batch.x.device
    if isinstance(ball, LinfBall):
        noise = torch.rand(batch.x.shape, generator=batch.generator, device=device)
        return ball.project(batch.x + ball.radius * (2.0 * noise - 1.0))
    example = torch.arange(len(batch.x), device=device)
    seed = torch.randint(2**32, (1,), generator=batch.generator, device=device)
    return ball.random(Draws(0, example, seed.expand_as(example), torch.zeros_like(example)))


def nearby(ball: Ball, batch: Batch) -> Tensor:
    """The image with normal noise of 0.001, where the loss may have no gradient at the image."""
    noise = torch.randn(batch.x.shape, generator=batch.generator, device=batch.x.device)
    return ball.project(batch.x + _NEAR * noise)


def against_label(model: nn.Module, batch: Batch) -> Callable[[Tensor], Tensor]:
    """Cross-entropy to the label: (B, K) -> scalar, summed over the batch."""
    return lambda logits: F.cross_entropy(logits, batch.y, reduction="sum")


def against_clean(model: nn.Module, batch: Batch) -> Callable[[Tensor], Tensor]:
    """Divergence KL(clean answer || answer): (B, K) -> scalar, summed over the batch."""
    with torch.no_grad():
        clean = model(batch.x).log_softmax(dim=1)
    return lambda logits: F.kl_div(
        logits.log_softmax(dim=1), clean, reduction="sum", log_target=True
    )


@dataclass(frozen=True)
class Adversary:
    """Projected gradient ascent from a random start, on the cross-entropy (arXiv:1706.06083).

    With one step of 1.25 it is FGSM with random start (arXiv:2001.03994).

    epsilon: on the [0, 1] scale. step_size: as a part of epsilon.
    start: where it begins. goal: what it makes grow, a function of the model in evaluation mode.

    The model is in evaluation mode meanwhile, where both papers leave it in training mode: the
    attack then meets the network as it will be used, one network for all steps whatever the
    dropout, and batch statistics are updated once for each batch. Weights gather no gradient.
    """

    norm: Norm
    epsilon: float
    steps: int
    step_size: float
    start: Start = anywhere
    goal: Goal = against_label

    def perturb(self, model: nn.Module, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """(B, C, H, W): the points reached, in the ball of `scale` times epsilon and in [0, 1]."""
        ball = ball_around(batch.x, self.norm, scale * self.epsilon)
        x_adv = self.start(ball, batch)
        step = self.step_size * ball.radius
        with as_used(model), torch.enable_grad():
            loss = self.goal(model, batch)
            for _ in range(self.steps):
                at = x_adv.requires_grad_()
                (gradient,) = torch.autograd.grad(GRADIENT_SCALE * loss(model(at)), at)
                at = at.detach()
                x_adv = ball.project(at + step * ball.steepest(gradient, at))
        return x_adv


def ball_around(x: Tensor, norm: Norm, epsilon: float) -> Ball:
    """The ball of one radius around each image (B, C, H, W)."""
    return make_ball(norm, x, torch.full((len(x),), epsilon, dtype=torch.float64, device=x.device))


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
