"""One attack at one epsilon, and what it made of every image: for what is to be looked at.

Nothing is searched, verified or recorded here: robust accuracies come from `cell`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..api.attack import Problem
from ..api.epsilon import Epsilon, Norm
from ..api.errors import BadParameter
from ..api.rng import Draws
from ..api.threat import Ball, make_ball, per_example
from ..victim.counters import UNLIMITED, AttackCounters
from ..victim.model import Network, frozen
from ..victim.oracle import Oracle, fooled
from .loop import in_steps


def perturb(
    module: nn.Module,
    attack: Any,
    images: Tensor,
    goals: Tensor,
    epsilon: Epsilon,
    norm: Norm,
    *,
    seed: int = 0,
    targeted: bool = False,
    batch_size: int = 128,
) -> Tensor:
    """(N, C, H, W): where an attack with its full budget ends, successful or not.

    Where its last iterate is not adversarial but an earlier one was, that one is taken.

    images: (N, C, H, W) in [0, 1], on the module's device. goals: (N,), the labels, or the classes
    to reach.

    Raises: BadParameter for a cascade, which has no end of its own.
    """
    if hasattr(attack, "attacks"):
        raise BadParameter("a cascade ends in many attacks: name one of them")
    stepping = in_steps(attack)
    device = images.device
    with frozen(module):
        network = Network(module, device, batch_size)
        made = []
        for rows in torch.arange(len(images)).split(batch_size):
            x, y = images[rows], goals[rows].to(device)
            radius = torch.full((len(x),), epsilon.value, dtype=torch.float64, device=device)
            ball = make_ball(norm, x, radius)
            counters = AttackCounters.open(
                ball, y, torch.full_like(y, UNLIMITED), radius[:, None].clone()
            )
            made.append(_end(stepping, network, ball, counters, rows.to(device), seed, targeted))
    return torch.cat(made)


def _end(
    attack: Any,
    network: Network,
    ball: Ball,
    counters: AttackCounters,
    example: Tensor,
    seed: int,
    targeted: bool,
) -> Tensor:
    """Take the attack's steps, (B, C, H, W)."""
    state = None
    for number in range(attack.steps):
        step = torch.full_like(example, number)
        draws = Draws(seed, example, torch.zeros_like(example), step)
        problem = Problem(
            x=ball.x,
            y=counters.y,
            targeted=targeted,
            ball=ball,
            victim=Oracle(
                network, counters, attack.access, targeted=targeted, limited=False, draws=draws
            ),
            draws=draws,
            step=step,
            start_points=ball.x,
            warm=torch.zeros_like(example, dtype=torch.bool),
        )
        state = attack.step(problem, attack.start(problem) if state is None else state)
        end: Tensor = state.x_adv.detach()
    logits = network.logits(end)
    lost = counters.broken & ~fooled(logits, counters.y, targeted=targeted)
    return torch.where(per_example(lost, end), counters.nearest, end)
