"""Auto-PGD towards the likeliest wrong classes, one after another."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, GradientSource, Preparation, Problem
from ...bench.api.threat import Norm
from ..gradients.autograd import Autograd
from ..parts.losses import Towards
from ..parts.parameters import at_least
from .apgd import APGD, APGDState


@dataclass
class TargetedAPGDState:
    """x_adv: (B, C, H, W), the iterate. target: (B,), the class it goes for."""

    inner: APGDState
    target: Tensor

    @property
    def x_adv(self) -> Tensor:
        """(B, C, H, W)."""
        return self.inner.x_adv


@dataclass(frozen=True)
class TargetedAPGD:
    """Auto-PGD on the targeted difference of logits ratio, a restart for each of several classes.

    The attack is not itself targeted: it leaves the label by way of each of the wrong classes whose
    logits are highest at the clean image. When the user names a target class, all restarts go
    there. Source: Croce & Hein 2020 (arXiv:2003.01690), section 4.2 and equation 7. Checked against
    pyautoattack and torchattacks.

    steps: gradients a class. targets: how many classes; no more than there are. rho, gradient: as
    for APGD.

    The classes to reach are the attack's own choice, unless the user names them:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(model, images, labels, "apgd-t", targets="next", epsilons=[0.025, 0.055])
    >>> result.records["target"].tolist()
    [1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    >>> result.curve["attack_success_rate"].tolist()
    [0.2, 0.5]
    """

    version: ClassVar[str] = "2"
    norms: ClassVar[tuple[Norm, ...]] = APGD.norms
    step_multiplier: ClassVar[float] = APGD.step_multiplier

    steps: int = 100
    targets: int = 9
    rho: float = 0.75
    gradient: GradientSource = Autograd()

    def __post_init__(self) -> None:
        at_least(1, targets=self.targets)
        self._apgd  # noqa: B018  refuses what is wrong with the rest

    @property
    def access(self) -> Access:
        """What its gradient source needs."""
        return self.gradient.access

    @property
    def attempts_per_restart(self) -> int:
        """A restart for each target class."""
        return self.targets

    @property
    def monotone(self) -> bool:
        """As APGD's."""
        return self._apgd.monotone

    @property
    def _apgd(self) -> APGD:
        return APGD(steps=self.steps, rho=self.rho, gradient=self.gradient)

    def prepare(self, preparation: Preparation) -> "TargetedAPGD":
        """Aim at no more classes than there are."""
        return replace(self, targets=min(self.targets, max(1, preparation.n_classes - 1)))

    def start(self, problem: Problem) -> TargetedAPGDState:
        """Choose the class, and begin at a random point."""
        return TargetedAPGDState(self._apgd.start(problem), likeliest(problem, self.targets))

    def step(self, problem: Problem, state: TargetedAPGDState) -> TargetedAPGDState:
        """One step of APGD towards the class."""
        inner = self._apgd.advance(problem, state.inner, Towards(state.target))
        return TargetedAPGDState(inner, state.target)


def likeliest(problem: Problem, targets: int) -> Tensor:
    """(B,): the wrong class that a restart goes for: by its logit at the clean image, best first.

    Asks for the scores of the clean images, a query each.
    """
    scores = problem.victim.scores(problem.x)
    wrong = scores.scatter(1, problem.y[:, None], -torch.inf)
    order = wrong.argsort(dim=1, descending=True, stable=True)
    reachable = (wrong > -torch.inf).sum(dim=1).clamp(min=1, max=targets)  # not those masked
    place = problem.restart % reachable
    return order.gather(1, place[:, None])[:, 0]
