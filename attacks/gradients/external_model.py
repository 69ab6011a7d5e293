"""The gradient of another network, which the attacker has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ...bench.api.attack import Access, Differentiable, Loss, Preparation, Problem
from ...bench.api.errors import BadParameter


@dataclass(frozen=True)
class Borrowed:
    """Gradient of another network, one that the attacker was given: nothing is asked or trained.

    Suites use it for their transfer matrix; `evaluate` takes networks as `attacker_networks`.
    Source: Szegedy et al. 2014 (arXiv:1312.6199), section 4, on examples that several networks
    misclassify.

    network: its name.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd", "gradient": {"name": "network", "network": "mine"}}
    >>> networks = {"mine": model}
    >>> result = evaluate(
    ...     model, images, labels, attack, epsilons=[0.025, 0.055], attacker_networks=networks
    ... )
    >>> int(result.records["backward"].max()), result.curve["robust_accuracy"].tolist()
    (0, [0.8, 0.5])
    """

    monotone: ClassVar[bool] = False

    network: str = field(repr=False)  # what it is called changes no number

    @property
    def access(self) -> Access:
        """Decision: the victim is asked for no more than the prediction."""
        return "decision"

    def prepare(self, preparation: Preparation) -> "Held":
        """Fetch the network. Raises: BadParameter when the attacker has none of that name."""
        return Held(preparation.open(preparation.borrow(self.network)))

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """Refuse: there is no network before `prepare`."""
        raise BadParameter("the network must be prepared before it is asked for a gradient")


@dataclass(frozen=True)
class Held:
    """The network at hand."""

    monotone: ClassVar[bool] = False
    access: ClassVar[Access] = "decision"
    report: ClassVar[Mapping[str, float]] = {}

    network: Differentiable = field(repr=False)

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the gradient of the network's loss at x."""
        return self.valued(problem, x, loss)[0]

    def valued(self, problem: Problem, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,): the gradient of the network's loss at x, and that loss."""
        answer = self.network.gradient(
            x,
            lambda logits: loss(logits, problem.y, targeted=problem.targeted),
            noise=problem.draws,
        )
        return answer.gradient, answer.loss
