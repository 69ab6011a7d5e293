"""Projected gradient descent."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ...bench.api.attack import Access, GradientSource, Loss, Problem
from ...bench.api.threat import Norm, per_example
from ..gradients.autograd import Autograd
from ..parts.losses import CrossEntropy
from ..parts.parameters import at_least, positive

_PATH: dict[Norm, float] = {"Linf": 2.5, "L2": 4.0, "L1": 4.0}  # in epsilons


@dataclass
class PGDState:
    """x_adv: (B, C, H, W), the iterate."""

    x_adv: Tensor


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent: steps along the steepest direction, back into the ball.

    Source: Madry et al. 2018 (arXiv:1706.06083), section 2.1. In L1 the steepest direction is
    spread over 5% of the coordinates, after Tramer & Boneh 2019 (arXiv:1904.13000), whose program
    has 1%. Checked against
    Foolbox and torchattacks in Linf and L2.

    steps: gradient steps.
    step_size: length of a step as a fraction of epsilon; by default the path of all steps is 2.5
        epsilon long in Linf, so that any corner can be reached from any point, and 4 epsilon in
        L2 and L1, where the last steps only turn: on a linear loss they end within 2 degrees of the
        best direction, 2.5 epsilon would leave 10.
    schedule: "constant", or "linear": steps that fall from twice that length to nothing.
    random_start: begin at a random point of the ball instead of at the clean image.
    loss: what grows. gradient: where its gradient comes from. A source that shows the victim only
        points around the iterate costs one query more a step, for the iterate itself: it is
        adversarial before they are, and inside the ball where they are not.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd", "steps": 10, "restarts": 2, "loss": "margin"}
    >>> result = evaluate(model, images, labels, attack, norm="L2", epsilons=[0.1, 0.22])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "1"

    steps: int = 40
    step_size: float | None = None
    random_start: bool = True
    loss: Loss = CrossEntropy()
    gradient: GradientSource = Autograd()
    schedule: Literal["constant", "linear"] = "constant"

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        positive(step_size=self.step_size)

    @property
    def access(self) -> Access:
        """What its gradient source needs."""
        return self.gradient.access

    @property
    def monotone(self) -> bool:
        """Whether a failure tells of smaller epsilons: not one long step, nor guesswork."""
        return self.steps > 1 and getattr(self.gradient, "monotone", True)

    @property
    def asks_iterates(self) -> bool:
        """Whether the iterates are asked about, apart from what the gradient needs."""
        return bool(getattr(self.gradient, "only_around", False))

    def start(self, problem: Problem) -> PGDState:
        """Begin at a random point, or at the clean image."""
        return PGDState(problem.initial(random_start=self.random_start))

    def step(self, problem: Problem, state: PGDState) -> PGDState:
        """Move along the steepest direction and project."""
        gradient = self.gradient(problem, state.x_adv, self.loss)
        direction = problem.ball.steepest(gradient, state.x_adv)
        size = self.step_size or min(1.0, _PATH[problem.ball.norm] / self.steps)
        length = size * problem.ball.radius
        if self.schedule == "linear":
            left = 1.0 - (problem.step + 0.5) / self.steps
            length = 2.0 * length * per_example(left, length).to(length.dtype)
        x_adv = problem.ball.project(state.x_adv + length * direction)
        if self.asks_iterates:
            problem.victim.labels(x_adv)
        return PGDState(x_adv)
