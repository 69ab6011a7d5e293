"""Auto-PGD: projected gradient descent that chooses its own step size."""

from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, GradientSource, Loss, Problem
from ...bench.api.errors import BadParameter
from ...bench.api.threat import Norm, measure, per_example
from ..gradients.autograd import Autograd
from ..gradients.value_and_gradient import valued
from ..parts.losses import DLR, CrossEntropy, Margin
from ..parts.parameters import at_least

_FIRST_STEP = 2.0  # in epsilons
_MOMENTUM = 0.75  # weight of the new step beside the last move
_FIRST_CHECK, _SHORTER, _SHORTEST = 0.22, 0.03, 0.06  # of all steps


@dataclass
class APGDState:
    """Where an example is, the best point it has seen, and what the next check goes by.

    x_adv, previous, best, best_gradient: (B, C, H, W). best_loss, last_loss: (B,). checked_loss:
    (B,), the best at the last check. rises: (B,), steps since then that raised the loss. size:
    (B,), of a step in epsilons. halved: (B,) bool, at the last check.
    """

    x_adv: Tensor
    previous: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    last_loss: Tensor
    checked_loss: Tensor
    rises: Tensor
    size: Tensor
    halved: Tensor


@dataclass(frozen=True)
class APGD:
    """Auto-PGD: momentum, and a step that is halved where progress stops, back at the best point.

    Source: Croce & Hein 2020 (arXiv:2003.01690), algorithm 1 and section 3, with the published
    constants. Unlike the authors' program, the first check counts the step away from the start as
    one that may have raised the loss, whatever the loss's sign. Checked against pyautoattack and
    torchattacks.

    steps: gradients. rho: a step is halved when fewer than this part of the steps since the last
    check have raised the loss. random_start: begin at a random point on the edge of the ball.
    loss: what grows. gradient: where its gradient comes from.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "apgd", "steps": 50, "loss": "margin", "restarts": 2}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "2"
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2")
    step_multiplier: ClassVar[float] = 0.3  # its first step is long already

    steps: int = 100
    rho: float = 0.75
    random_start: bool = True
    loss: Loss = CrossEntropy()
    gradient: GradientSource = Autograd()

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        if not 0.0 <= self.rho <= 1.0:
            raise BadParameter(f"rho must lie between 0 and 1, not {self.rho}")

    @property
    def access(self) -> Access:
        """What its gradient source needs."""
        return self.gradient.access

    @property
    def monotone(self) -> bool:
        """Whether a failure tells of smaller epsilons: not one long step, nor guesswork."""
        return self.steps > 1 and getattr(self.gradient, "monotone", True)

    def start(self, problem: Problem) -> APGDState:
        """Begin at a random point on the edge of the ball, or at the clean image."""
        x_adv = problem.initial(random_start=False)
        if self.random_start:
            x_adv = _choose(problem.warm, x_adv, _on_the_edge(problem))
        nothing = torch.full(problem.y.shape, -torch.inf, device=x_adv.device)
        zeros = torch.zeros_like(nothing)
        return APGDState(
            x_adv=x_adv,
            previous=x_adv,
            best=x_adv,
            best_gradient=torch.zeros_like(x_adv),
            best_loss=nothing,
            last_loss=nothing,
            checked_loss=nothing,
            rises=zeros,
            size=zeros + _FIRST_STEP,
            halved=torch.ones_like(problem.y, dtype=torch.bool),
        )

    def step(self, problem: Problem, state: APGDState) -> APGDState:
        """Look at the iterate, check progress when it is time, and move on."""
        return self.advance(problem, state, self.loss)

    def advance(self, problem: Problem, state: APGDState, loss: Loss) -> APGDState:
        """As `step`, with a loss of one's own."""
        gradient, value = valued(self.gradient, problem, state.x_adv, loss)
        first = problem.step == 0
        better = value > state.best_loss
        best = _choose(better, state.x_adv, state.best)
        best_gradient = _choose(better, gradient, state.best_gradient)
        best_loss = torch.where(better, value, state.best_loss)
        rises = state.rises + (~first & (value > state.last_loss))
        window = self._windows(problem.step)
        due = window > 0
        stuck = ~state.halved & (state.checked_loss >= best_loss)
        halve = due & ((rises <= self.rho * window) | stuck)
        x = _choose(halve, best, state.x_adv)
        gradient = _choose(halve, best_gradient, gradient)
        size = torch.where(halve, state.size / 2.0, state.size)
        checked = torch.where(due | first, best_loss, state.checked_loss)
        return APGDState(
            x_adv=self._moved(problem, x, x - state.previous, gradient, size),
            previous=x,
            best=best,
            best_gradient=best_gradient,
            best_loss=best_loss,
            last_loss=value,
            checked_loss=checked,
            rises=torch.where(due, 0.0, rises),
            size=size,
            halved=torch.where(due, halve, state.halved),
        )

    def _moved(
        self, problem: Problem, x: Tensor, move: Tensor, gradient: Tensor, size: Tensor
    ) -> Tensor:
        """(B, C, H, W): a step along the gradient, mixed with the last move."""
        ball = problem.ball
        direction = ball.steepest(gradient, x)
        target = ball.project(x + per_example(size, x) * ball.radius * direction)
        weight = torch.where(problem.step == 0, 1.0, _MOMENTUM).to(x.dtype)
        weight = per_example(weight, x)
        return ball.project(x + weight * (target - x) + (1.0 - weight) * move)

    def _windows(self, step: Tensor) -> Tensor:
        """(B,): how many steps there were since the last check where one is due now, else 0."""
        windows = torch.zeros(self.steps + 1, device=step.device)
        for at, window in checkpoints(self.steps):
            windows[at] = window
        return windows[step]


def apgd_ce(
    *,
    steps: int = 100,
    rho: float = 0.75,
    random_start: bool = True,
    gradient: GradientSource = Autograd(),
) -> APGD:
    """Auto-PGD on the cross-entropy: the first attack of AutoAttack.

    Source: Croce & Hein 2020 (arXiv:2003.01690), section 4. Checked against torchattacks.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(model, images, labels, "apgd-ce", norm="L2", epsilons=[0.1, 0.22])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """
    return APGD(steps, rho, random_start, CrossEntropy(), gradient)


def apgd_dlr(
    *,
    steps: int = 100,
    rho: float = 0.75,
    random_start: bool = True,
    gradient: GradientSource = Autograd(),
) -> APGD:
    """Auto-PGD on the difference of logits ratio.

    Source: Croce & Hein 2020 (arXiv:2003.01690), section 4.1. Checked against torchattacks.

    Unlike that of cross-entropy, its gradient does not vanish where the logits are large:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> model[1].weight.data *= 1000.0
    >>> for attack in ("apgd-ce", "apgd-dlr"):
    ...     result = evaluate(model, images, labels, attack, epsilons=[0.055])
    ...     attack, result.curve["robust_accuracy"].tolist()
    ('apgd-ce', [0.9])
    ('apgd-dlr', [0.5])
    """
    return APGD(steps, rho, random_start, DLR(), gradient)


def apgd_margin(
    *,
    steps: int = 100,
    rho: float = 0.75,
    random_start: bool = True,
    gradient: GradientSource = Autograd(),
) -> APGD:
    """Auto-PGD on the margin between the best wrong logit and the label's.

    Source: Croce & Hein 2020 (arXiv:2003.01690), section 4, with the loss of Carlini & Wagner 2017.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "apgd-margin", "steps": 50}
    >>> result = evaluate(model, images, labels, attack, norm="L2", epsilons=[0.1, 0.22])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """
    return APGD(steps, rho, random_start, Margin(), gradient)


def checkpoints(steps: int) -> list[tuple[int, int]]:
    """Steps done when progress is checked, each with how many there were since the last check."""
    first, shorter, shortest = (
        max(int(share * steps), 1) for share in (_FIRST_CHECK, _SHORTER, _SHORTEST)
    )
    windows = [max(first - shorter * number, shortest) for number in range(steps)]
    times = takewhile(lambda at: at <= steps, accumulate(windows))
    return [(at, window) for at, window in zip(times, windows, strict=False)]


def _on_the_edge(problem: Problem) -> Tensor:
    """(B, C, H, W): points at epsilon from the image in a random direction, clipped to [0, 1]."""
    shape, norm = problem.x.shape[1:], problem.ball.norm
    draws = problem.draws
    noise = (
        2.0 * draws.uniform(shape, "start") - 1.0
        if norm == "Linf"
        else draws.normal(shape, "start")
    )
    scale = (problem.epsilon / measure(noise, norm).clamp(min=1e-30)).to(noise.dtype)
    return problem.ball.project(problem.x + per_example(scale, noise) * noise)


def _choose(rows: Tensor, images: Tensor, others: Tensor) -> Tensor:
    """(B, C, H, W): the images of some rows, (B,) bool, and the others of the rest."""
    return torch.where(per_example(rows, images), images, others)
