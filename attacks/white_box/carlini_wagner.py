"""Carlini and Wagner's attacks: one plugin for L2 and Linf."""

from dataclasses import dataclass
from typing import ClassVar

from ...bench.api.attack import Access, Problem
from ...bench.api.threat import Norm
from .carlini_wagner_l2 import CarliniWagnerL2, CarliniWagnerL2State
from .carlini_wagner_linf import CarliniWagnerLinf, CarliniWagnerLinfState

CarliniWagnerState = CarliniWagnerL2State | CarliniWagnerLinfState
_VARIANTS: dict[Norm, type[CarliniWagnerL2 | CarliniWagnerLinf]] = {
    "L2": CarliniWagnerL2,
    "Linf": CarliniWagnerLinf,
}


@dataclass(frozen=True)
class CarliniWagner:
    """Carlini and Wagner's attack: in L2 by a penalised distance, in Linf by a falling limit.

    Source: Carlini & Wagner 2017 (arXiv:1608.04644). `CarliniWagnerL2` and `CarliniWagnerLinf` say
    how each goes and where it departs from the paper.

    Checked against Foolbox, adv-lib, and known distances on small networks.

    One gradient a step.

    steps: gradient steps in all. rounds: how many constants are tried one after another in L2, 5 by
    default; into how many parts the steps are cut in Linf, 10, where a round ends early when it has
    succeeded. step_size: Adam's first, in the space of tanh;
    ten times that of the authors' code: pixels at 0 and 1 lie so far out in that space that they
    would have to travel for hundreds of its steps.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "carlini-wagner", "steps": 300}
    >>> result = evaluate(model, images, labels, attack, norm="L2", epsilons=[0.1, 0.22])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    version: ClassVar[str] = "2"
    access: ClassVar[Access] = "white-box"
    norms: ClassVar[tuple[Norm, ...]] = ("L2", "Linf")
    stays_in_ball: ClassVar[bool] = False
    minimum_norm: ClassVar[bool] = True

    steps: int = 1000
    rounds: int | None = None
    step_size: float = 0.1

    def __post_init__(self) -> None:
        self._variant("L2")
        self._variant("Linf")

    def _variant(self, norm: Norm) -> CarliniWagnerL2 | CarliniWagnerLinf:
        kind = _VARIANTS[norm]
        rounds = kind.rounds if self.rounds is None else self.rounds
        return kind(steps=self.steps, rounds=rounds, step_size=self.step_size)

    def start(self, problem: Problem) -> CarliniWagnerState:
        """Begin as the norm's variant does."""
        return self._variant(problem.ball.norm).start(problem)

    def step(self, problem: Problem, state: CarliniWagnerState) -> CarliniWagnerState:
        """Advance as the norm's variant does."""
        variant = self._variant(problem.ball.norm)
        return variant.step(problem, state)  # type: ignore[arg-type]  # its own state
