"""Momentum iterative methods: MI-FGSM, with a look ahead (NI-FGSM) and variance tuning (VMI)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, GradientSource, Loss, Problem
from ...bench.api.errors import BadParameter
from ...bench.api.threat import Norm, measure, per_example
from ..gradients.autograd import Autograd
from ..parts.losses import CrossEntropy
from ..parts.parameters import at_least, positive

_TINY = 1e-30
_APART = 20  # bits of a step's number that are left to steps; above them neighbours are told apart


@dataclass
class MomentumState:
    """x_adv, momentum, variance: (B, C, H, W)."""

    x_adv: Tensor
    momentum: Tensor
    variance: Tensor


@dataclass(frozen=True)
class MomentumIterative:
    """Momentum iterative FGSM: steps along gradients that add up, which transfers better.

    Source: Dong et al. 2018 (arXiv:1710.06081), Algorithm 1; nesterov is Lin et al. 2020
    (arXiv:1908.06281), section 3.1; neighbours is Wang & He 2021 (arXiv:2103.15571), Algorithm 1.
    Checked against torchattacks.

    steps: gradient steps. step_size: length of a step as a fraction of epsilon; 1 / steps by
        default. decay: of the momentum.
    nesterov: take the gradient where the momentum would lead.
    neighbours: points around the iterate by whose mean gradient the next one is corrected; each
        costs a gradient a step. 0: none. reach: how far they lie, in epsilons.
    random_start: begin at a random point of the ball. loss: what grows. gradient: where its
        gradient comes from.

    Deviations: gradients are scaled before they add up so that a step along one is as long as a
    step of the norm, by their mean absolute value in Linf (the papers write the L1 norm, their code
    the mean; with the sum Nesterov's look ahead would be nothing) and by their own norm in L2 and
    L1. Points looked at are clipped to [0, 1]. In L2 and L1 neighbours lie `reach` epsilons away.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "mi-fgsm", "steps": 20, "nesterov": True}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "1"
    stays_in_ball: ClassVar[bool] = True

    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    nesterov: bool = False
    neighbours: int = 0
    reach: float = 1.5
    random_start: bool = False
    loss: Loss = CrossEntropy()
    gradient: GradientSource = Autograd()

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        positive(step_size=self.step_size)
        if not self.decay >= 0.0:
            raise BadParameter(f"decay must not be negative, not {self.decay}")
        if self.neighbours < 0:
            raise BadParameter(f"neighbours must not be negative, not {self.neighbours}")
        positive(reach=self.reach)

    @property
    def access(self) -> Access:
        """What its gradient source needs."""
        return self.gradient.access

    @property
    def monotone(self) -> bool:
        """Whether a failure tells of smaller epsilons: not one long step, nor guesswork."""
        return self.steps > 1 and getattr(self.gradient, "monotone", True)

    def start(self, problem: Problem) -> MomentumState:
        """Begin at the clean image, or at a random point, without momentum."""
        x = problem.initial(random_start=self.random_start)
        return MomentumState(x, torch.zeros_like(x), torch.zeros_like(x))

    def step(self, problem: Problem, state: MomentumState) -> MomentumState:
        """Add the gradient, corrected, to the momentum; move along it and project."""
        length = (self.step_size or 1.0 / self.steps) * problem.ball.radius
        x = state.x_adv
        looked = (x + length * self.decay * state.momentum).clamp(0, 1) if self.nesterov else x
        gradient = self.gradient(problem, looked, self.loss)
        variance = self._variance(problem, looked, gradient)
        norm = problem.ball.norm
        momentum = self.decay * state.momentum + unit(gradient + state.variance, norm)
        moved = x + length * problem.ball.steepest(momentum, x)
        return MomentumState(problem.ball.project(moved), momentum, variance)

    def _variance(self, problem: Problem, x: Tensor, gradient: Tensor) -> Tensor:
        """(B, C, H, W): by how much the mean gradient around x differs from that at x."""
        if not self.neighbours:
            return torch.zeros_like(x)
        reach = per_example(self.reach * problem.epsilon, x).to(x.dtype)
        total = torch.zeros_like(x)
        for number in range(1, self.neighbours + 1):
            # random parts of the gradient source are to draw again for each neighbour
            draws = replace(problem.draws, step=problem.draws.step + (number << _APART))
            noise = 2.0 * draws.uniform(x.shape[1:], "neighbour") - 1.0
            if problem.ball.norm != "Linf":
                noise = noise / per_example(measure(noise, problem.ball.norm), x).to(x.dtype)
            near = (x + reach * noise).clamp(0, 1)
            total = total + self.gradient(replace(problem, draws=draws), near, self.loss)
        return total / self.neighbours - gradient


def unit(gradient: Tensor, norm: Norm) -> Tensor:
    """The gradient (B, C, H, W), scaled so that a step along it is one unit long; zero stays zero.

    In Linf that is a mean absolute value of 1.
    """
    flat = gradient.flatten(1)
    largest = flat.abs().amax(dim=1).clamp(min=_TINY)
    flat = flat / largest[:, None]  # the squares of 1e-30 would vanish
    length = flat.abs().mean(dim=1) if norm == "Linf" else measure(flat, norm, flat.dtype)
    return (flat / length.clamp(min=_TINY)[:, None]).reshape(gradient.shape)


def ni_fgsm(
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    random_start: bool = False,
    loss: Loss = CrossEntropy(),
    gradient: GradientSource = Autograd(),
) -> MomentumIterative:
    """Nesterov iterative FGSM: MI-FGSM that looks where its momentum leads.

    Source: Lin et al. 2020 (arXiv:1908.06281), section 3.1, without the scaled copies. Checked
    against torchattacks.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(model, images, labels, "ni-fgsm", epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """
    return MomentumIterative(
        steps, step_size, decay, True, random_start=random_start, loss=loss, gradient=gradient
    )


def vmi_fgsm(
    *,
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    neighbours: int = 20,
    reach: float = 1.5,
    nesterov: bool = False,
    loss: Loss = CrossEntropy(),
    gradient: GradientSource = Autograd(),
) -> MomentumIterative:
    """Variance-tuned MI-FGSM: each gradient is corrected by those around the last iterate.

    Source: Wang & He 2021 (arXiv:2103.15571), Algorithm 1. Checked against torchattacks.

    Each neighbour costs a gradient a step:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> for neighbours in (1, 4):
    ...     attack = {"name": "vmi-fgsm", "steps": 5, "neighbours": neighbours}
    ...     result = evaluate(
    ...         model, images, labels, attack, epsilons=[0.005], search="exhaustive"
    ...     )
    ...     int(result.records["backward"].max())
    10
    25
    """
    return MomentumIterative(
        steps, step_size, decay, nesterov, neighbours, reach, loss=loss, gradient=gradient
    )
