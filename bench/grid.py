"""Norms and grids of epsilons, as the user writes them. No torch here."""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal, get_args

Norm = Literal["Linf", "L2", "L1"]
NORMS: tuple[Norm, ...] = get_args(Norm)
_SHOWN = 60  # characters of what is no number, in a message


@dataclass(frozen=True)
class Epsilon:
    """A radius on the [0, 1] scale, with its text as the user wrote it: `8/255` stays `8/255`."""

    text: str
    value: float

    @classmethod
    def parse(cls, written: object) -> "Epsilon":
        """Read a number or a text such as "8/255".

        Raises: ValueError when it is not a positive finite number.
        """
        if isinstance(written, Epsilon):
            return written
        text, value = _read(written)
        if not math.isfinite(value):
            raise ValueError(
                f"epsilon {text!r} is not a number such as 0.03 or a fraction such as '8/255'"
            )
        if value <= 0.0:
            raise ValueError(f"epsilon {text} must be positive")
        return cls(text, value)


def _read(written: object) -> tuple[str, float]:
    """The text and the number; NaN for what is none.

    Only a quotient is computed exactly: `1e999999999` as a fraction has a billion digits.
    """
    text = "of too many digits"  # for Python to print
    try:
        text = str(getattr(written, "text", written)).strip()
        short = text.replace(" ", "")
        return text, float(Fraction(short) if "/" in short else short)
    except (ZeroDivisionError, OverflowError, ValueError):
        return (text if len(text) <= _SHOWN else text[:_SHOWN] + "..."), math.nan


def parse_grid(written: object) -> tuple[Epsilon, ...]:
    """Read a grid of epsilons, in ascending order.

    Raises: ValueError when it is empty, not a list, or names one value twice.
    """
    if not isinstance(written, (list, tuple)):
        raise ValueError(f"epsilons must be a list, not {written!r}")
    if not written:
        raise ValueError("epsilons must hold at least one value")
    grid = sorted((Epsilon.parse(one) for one in written), key=lambda one: one.value)
    for lower, upper in pairwise(grid):
        if lower.value == upper.value:
            raise ValueError(f"epsilons hold one value twice: {lower.text} and {upper.text}")
    return tuple(grid)
