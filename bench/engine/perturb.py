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
from ..api.threat import make_ball, per_example
from ..victim.counters import UNLIMITED, AttackCounters
from ..victim.decision import decision_of
from ..victim.model import Network, frozen
from ..victim.oracle import AttackedModel, Oracle
from ..victim.traits import ModelTraits
from .loop import in_steps
from .preparation import surrogates

_DRAWS = 10  # of a stochastic model, that each gradient is the mean over


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
    surrogate = surrogates(ModelTraits.of_module(module))
    with frozen(module):
        network = Network(module, images.device, batch_size, surrogates=surrogate)
        model = AttackedModel(
            decision_of(network, targeted=targeted),
            attack.access,
            samples=_DRAWS if network.stochastic else 1,
            limited=False,
        )
        rows = torch.arange(len(images), device=images.device).split(batch_size)
        return torch.cat(
            [
                _end(in_steps(attack), model, images[some], goals[some], some, epsilon, norm, seed)
                for some in rows
            ]
        )


def _end(
    attack: Any,
    model: AttackedModel,
    x: Tensor,
    y: Tensor,
    example: Tensor,
    epsilon: Epsilon,
    norm: Norm,
    seed: int,
) -> Tensor:
    """Take the attack's steps on one batch."""
    radius = torch.full((len(x),), epsilon.value, dtype=torch.float64, device=x.device)
    ball = make_ball(norm, x, radius)
    unlimited = torch.full_like(y, UNLIMITED)
    counters = AttackCounters.open(ball, y, unlimited, radius[:, None].clone())
    zeros = torch.zeros_like(example)
    state, end = None, x
    for number in range(attack.steps):
        draws = Draws(seed, example, zeros, torch.full_like(example, number))
        problem = Problem(
            x=x,
            y=y,
            targeted=model.rule.targeted,
            ball=ball,
            victim=Oracle(model, counters, draws),
            draws=draws,
            step=draws.step,
            start_points=x,
            warm=torch.zeros_like(example, dtype=torch.bool),
        )
        state = attack.step(problem, attack.start(problem) if state is None else state)
        end = state.x_adv.detach()
    rule = model.rule
    answers, sure = rule.judged(end, y, Draws(seed, example, zeros, zeros))
    lost = ~(rule.adversarial(answers, y) & sure) & counters.broken
    return torch.where(per_example(lost, end), counters.nearest, end)
