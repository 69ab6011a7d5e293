"""The gradient of the expected loss of a randomised model."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ...bench.api.attack import Access, GradientSource, Loss, Problem
from ..parts.parameters import at_least
from .autograd import Autograd
from .value_and_gradient import valued

_APART = 0x9E3779B1  # odd, so that no two draws in 2**32 share a seed


@dataclass(frozen=True)
class EOT:
    """Expectation over transformation: the mean of another source's gradients over several draws.

    Each draw asks the model again, and a stochastic model answers each question with random numbers
    of its own. Source: Athalye et al. 2018 (arXiv:1707.07397), equation 2.

    samples: draws. gradient: the source to average.

    Each draw is counted as passes of its own:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd", "steps": 10, "gradient": {"name": "eot", "samples": 3}}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.005], search="exhaustive")
    >>> int(result.records["backward"].max())
    30
    """

    adapts: ClassVar[tuple[str, ...]] = ("stochastic",)

    samples: int = 20
    gradient: GradientSource = Autograd()

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples)

    @property
    def access(self) -> Access:
        """What the other source needs."""
        return self.gradient.access

    @property
    def monotone(self) -> bool:
        """As the other source."""
        return bool(getattr(self.gradient, "monotone", True))

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the mean gradient at x."""
        total = self.gradient(problem, x, loss)
        for again in self._again(problem):
            total = total + self.gradient(again, x, loss)
        return total / self.samples

    def valued(self, problem: Problem, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,): the mean gradient at x, and the mean loss."""
        total, height = valued(self.gradient, problem, x, loss)
        for again in self._again(problem):
            more, value = valued(self.gradient, again, x, loss)
            total, height = total + more, height + value
        return total / self.samples, height / self.samples

    def _again(self, problem: Problem) -> Iterator[Problem]:
        """The problem for each further draw, with random numbers of its own."""
        for number in range(1, self.samples):
            seed = (problem.draws.seed + number * _APART) % 2**32
            yield replace(problem, draws=replace(problem.draws, seed=seed))
