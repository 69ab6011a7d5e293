"""The search for the constant that weighs success against distance."""

from dataclasses import dataclass

import torch
from torch import Tensor

_GROWTH = 10.0  # of the constant, while none has succeeded
_REPEAT_FROM = 10  # rounds: of so many, the last repeats the smallest constant that succeeded


@dataclass
class ConstantSearch:
    """Binary search for the smallest constant that finds adversarial points, by rounds of steps.

    Source: Carlini & Wagner 2017 (arXiv:1608.04644), section V and the authors' code.

    constant, lower, upper: (B,) float64. found: (B,) bool, whether this round has.
    """

    constant: Tensor
    lower: Tensor
    upper: Tensor
    found: Tensor

    @classmethod
    def open(cls, like: Tensor, initial: float) -> "ConstantSearch":
        """Begin with a constant for each row of `like` (B,)."""
        lower = torch.zeros(like.shape, dtype=torch.float64, device=like.device)
        found = torch.zeros_like(like, dtype=torch.bool)
        return cls(lower + initial, lower, lower + torch.inf, found)

    def renewed(self, rows: Tensor, *, last: Tensor) -> "ConstantSearch":
        """Begin a new round in some rows (B,) bool, by what the one before it has shown.

        last: (B,) bool, where it is the last of many.
        """
        upper = torch.where(rows & self.found, self.upper.minimum(self.constant), self.upper)
        lower = torch.where(rows & ~self.found, self.lower.maximum(self.constant), self.lower)
        proposed = torch.where(last, upper, (lower + upper) / 2.0)
        proposed = torch.where(upper.isfinite(), proposed, _GROWTH * self.constant)
        constant = torch.where(rows, proposed, self.constant)
        return ConstantSearch(constant, lower, upper, self.found & ~rows)


@dataclass(frozen=True)
class Rounds:
    """How the steps of an attack are cut into rounds; the last takes what is left over."""

    steps: int
    rounds: int

    @property
    def length(self) -> int:
        """Steps of a round."""
        return self.steps // self.rounds

    def iteration(self, step: Tensor) -> Tensor:
        """(B,): steps done so far of the present round. step: (B,), of all."""
        return step - self._number(step) * self.length

    def begun(self, search: ConstantSearch, step: Tensor) -> ConstantSearch:
        """The search, in a new round where a round begins."""
        many = self.rounds >= _REPEAT_FROM
        last = (self._number(step) == self.rounds - 1) & many
        return search.renewed((self.iteration(step) == 0) & (step > 0), last=last)

    def _number(self, step: Tensor) -> Tensor:
        return (step // self.length).clamp(max=self.rounds - 1)
