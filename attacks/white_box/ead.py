"""The elastic-net attack."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Problem
from ...bench.api.threat import Norm, per_example
from ..parts.losses import Margin
from ..parts.parameters import at_least, positive
from ..parts.penalty_search import ConstantSearch, Rounds


@dataclass
class EADState:
    """x_adv: (B, C, H, W), the iterate. ahead: (B, C, H, W), where the next gradient is taken."""

    x_adv: Tensor
    ahead: Tensor
    search: ConstantSearch


@dataclass(frozen=True)
class EAD:
    """Elastic-net attack in L1: FISTA on c * max(-margin, 0) + |delta|_2^2 + beta * |delta|_1.

    Source: Chen et al. 2018 (arXiv:1709.04114), algorithm 1, with confidence 0. As in the authors'
    code a shrinkage takes off beta, whatever the step size, which falls with the square root of the
    iterations left. Rounds and constants are those of CarliniWagnerL2, c begins at 0.1 instead of
    1e-3. Which adversarial example is the
    nearest is decided by the L1 norm, the paper's rule "L1".

    Checked against Foolbox, and known distances on small networks.

    A gradient and a query a step.

    steps: in all. rounds: how many constants are tried one after another. step_size: the first.
    beta: weight of the L1 norm. initial_constant: the first c.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "ead", "steps": 500}
    >>> result = evaluate(model, images, labels, attack, norm="L1", epsilons=[0.4, 0.88])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "1"
    access: ClassVar[Access] = "white-box"
    norms: ClassVar[tuple[Norm, ...]] = ("L1",)
    stays_in_ball: ClassVar[bool] = False
    minimum_norm: ClassVar[bool] = True
    asks_iterates: ClassVar[bool] = True

    steps: int = 1000
    rounds: int = 5
    step_size: float = 0.01
    beta: float = 0.01
    initial_constant: float = 0.1

    def __post_init__(self) -> None:
        at_least(1, rounds=self.rounds)
        at_least(self.rounds, steps=self.steps)
        positive(step_size=self.step_size, beta=self.beta, initial_constant=self.initial_constant)

    def start(self, problem: Problem) -> EADState:
        """Begin at the clean image."""
        search = ConstantSearch.open(problem.y, self.initial_constant)
        return EADState(problem.x, problem.x, search)

    def step(self, problem: Problem, state: EADState) -> EADState:
        """One step of FISTA, of a new round where one begins."""
        plan = Rounds(self.steps, self.rounds)
        iteration = plan.iteration(problem.step)
        search = plan.begun(state.search, problem.step)
        fresh = per_example(iteration == 0, problem.x)
        before = torch.where(fresh, problem.x, state.x_adv)
        ahead = torch.where(fresh, problem.x, state.ahead)

        def margin(logits: Tensor) -> Tensor:
            return Margin()(logits, problem.y, targeted=problem.targeted)

        answer = problem.victim.gradient(ahead, margin)
        weight = per_example(search.constant * (answer.loss <= 0), ahead).to(ahead.dtype)
        slope = 2.0 * (ahead - problem.x) - weight * answer.gradient
        done = (iteration.double() / plan.length).clamp(max=1.0)
        size = per_example(self.step_size * (1.0 - done).sqrt(), ahead).to(ahead.dtype)
        x_adv = self._shrunk(problem.x, ahead - size * slope)
        search.found = search.found | (margin(problem.victim.scores(x_adv)) > 0)
        momentum = per_example(iteration / (iteration + 3.0), ahead)
        return EADState(x_adv, x_adv + momentum * (x_adv - before), search)

    def _shrunk(self, x: Tensor, points: Tensor) -> Tensor:
        """(B, C, H, W): each coordinate nearer to x by beta, x itself within beta; in [0, 1]."""
        delta = points - x
        return (x + delta.sign() * (delta.abs() - self.beta).clamp(min=0.0)).clamp(0.0, 1.0)
