"""Intervals that go through a network's own forward pass in place of a tensor."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SMALLEST = 2.0**-126  # what one operation may lose where a result is flushed to zero

Rule = Callable[..., "Interval"]
RULES: dict[str, Rule] = {}  # what stands in for a function of torch, by its name; interval_rules


class Unbounded(Exception):
    """An operation that has no rule here."""


@dataclass(frozen=True, eq=False)
class Interval:
    """Bounds of a tensor, element by element. A network's own forward pass takes it for a tensor.

    lower, upper: (B, ...) tensors of one shape.
    unit: the unit roundoff of the network's arithmetic. The bounds then also hold what the network
        computes with rounding errors, if they are themselves in a much finer arithmetic. 0: the
        bounds are of exact arithmetic, as far as their own goes.
    head: the linear layer that this came out of, and what went in, for `margins`.

    Rounding is bounded as usual (Higham 2002, "Accuracy and stability of numerical algorithms",
    section 3.1): a sum of n products is off by n unit / (1 - n unit) times the sum of their
    magnitudes at most, in whatever order it is taken. Convolutions by Winograd's or Fourier's
    transforms are not sums of that kind, and not covered.
    """

    lower: Tensor
    upper: Tensor
    unit: float = 0.0
    head: "Head | None" = None

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> "Interval":
        """Go by a rule's name, not its function: those differ between releases of torch."""
        name = getattr(function, "__name__", str(function)).strip("_")
        if name not in RULES:
            raise Unbounded(f"'{name}' of intervals")
        return RULES[name](*args, **(kwargs or {}))

    @property
    def centre(self) -> Tensor:
        """Half way between the bounds."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width, not negative."""
        return (self.upper - self.lower) / 2

    @property
    def largest(self) -> Tensor:
        """The largest magnitude within the bounds."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @property
    def shape(self) -> torch.Size:
        """That of the tensor in between."""
        return self.lower.shape

    @property
    def device(self) -> torch.device:
        """Where the bounds are."""
        return self.lower.device

    def dim(self) -> int:
        """How many axes there are."""
        return self.lower.dim()

    def size(self, axis: int | None = None) -> Any:
        """The shape, or one axis of it."""
        return self.shape if axis is None else self.shape[axis]

    def each(self, act: Callable[[Tensor], Tensor]) -> "Interval":
        """Both bounds through a function that never falls and never rounds."""
        return Interval(act(self.lower), act(self.upper), self.unit)

    def widened(self, magnitude: Tensor, terms: float) -> "Interval":
        """Room for the rounding of a sum of so many terms, whose magnitudes sum to `magnitude`."""
        if not self.unit:
            return self
        room = self.unit * (terms + 4) / (1 - self.unit * (terms + 4))
        slack = room * magnitude + terms * _SMALLEST
        return Interval(self.lower - slack, self.upper + slack, self.unit, self.head)

    def __getitem__(self, index: Any) -> "Interval":
        return self.each(lambda one: one[index])

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Interval":
        """As of a tensor."""
        return self.each(lambda one: one.flatten(start_dim, end_dim))

    def reshape(self, *shape: Any) -> "Interval":
        """As of a tensor."""
        return self.each(lambda one: one.reshape(*shape))

    view = reshape

    def relu(self) -> "Interval":
        """As of a tensor."""
        return RULES["relu"](self)

    def mean(self, dim: Any = None, keepdim: bool = False) -> "Interval":
        """As of a tensor."""
        return RULES["mean"](self, dim, keepdim)

    def __add__(self, other: Any) -> "Interval":
        return RULES["add"](self, other)

    __radd__ = __add__

    def __neg__(self) -> "Interval":
        return Interval(-self.upper, -self.lower, self.unit)

    def __sub__(self, other: Any) -> "Interval":
        return RULES["add"](self, -other)

    def __rsub__(self, other: Any) -> "Interval":
        return RULES["add"](-self, other)

    def __mul__(self, other: Any) -> "Interval":
        return RULES["mul"](self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Interval":
        return RULES["div"](self, other)


@dataclass(frozen=True, eq=False)
class Head:
    """A linear layer, weight (K, D) and bias (K,), on an interval (B, D)."""

    inner: Interval
    weight: Tensor
    bias: Tensor
