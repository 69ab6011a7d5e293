"""Norms and grids of epsilons, as the user writes them. No torch here."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Literal, cast, get_args

from .errors import BadParameter, check_choice

Norm = Literal["Linf", "L2", "L1"]
NORMS: tuple[Norm, ...] = get_args(Norm)
_SHOWN = 60  # characters of what is no number, in a message


@dataclass(frozen=True)
class Epsilon:
    """A radius on the [0, 1] scale, with its text as the user wrote it: `8/255` stays `8/255`.

    >>> from quintain.bench.api.epsilon import Epsilon
    >>> Epsilon.parse("8/255").text, round(Epsilon.parse("8/255").value, 4)
    ('8/255', 0.0314)
    >>> Epsilon.parse("0.1") == Epsilon.parse("0.10") == Epsilon.parse(0.1)
    True
    """

    text: str = field(compare=False, metadata={"in_key": False})
    value: float

    @classmethod
    def parse(cls, written: object) -> "Epsilon":
        """Read a number or a text such as "8/255".

        Raises: BadParameter when it is not a positive finite number.
        """
        if isinstance(written, Epsilon):
            return written
        text, value = _read(written)
        if not math.isfinite(value):
            raise BadParameter(
                f"epsilon {text!r} is not a number such as 0.03 or a fraction such as '8/255'"
            )
        if value <= 0.0:
            raise BadParameter(f"epsilon {text} must be positive")
        return cls(text, value)


def _read(written: object) -> tuple[str, float]:
    """The text and the number; NaN for what is none.

    Only a quotient is computed exactly: `1e999999999` as a fraction has a billion digits.
    """
    text = "of too many digits"  # for Python to print
    try:
        text = str(_scalar(getattr(written, "text", written))).strip()
        short = text.replace(" ", "")
        return text, float(Fraction(short) if "/" in short else short)
    except (ZeroDivisionError, OverflowError, ValueError):
        return (text if len(text) <= _SHOWN else text[:_SHOWN] + "..."), math.nan


def farthest(norm: Norm, shape: Sequence[int] | None = None) -> float:
    """How far apart two images in [0, 1] can be: 1 in Linf, sqrt(D) in L2 and D in L1.

    shape: of the images, (C, H, W), with D = C H W; without it the answer in L2 and L1 is inf.
    """
    if norm == "Linf":
        return 1.0
    if shape is None:
        return math.inf
    size = math.prod(shape)
    return math.sqrt(size) if norm == "L2" else float(size)


def check_radii(
    epsilons: Iterable[Epsilon], norm: Norm, shape: Sequence[int] | None = None
) -> None:
    """Refuse epsilons beyond every image in [0, 1]: they were meant for the scale of 0 to 255.

    shape: as for `farthest`; limits in L2 and L1 are known with it only.

    Raises: BadParameter, naming the first such epsilon and what it is on the scale of 0 to 1.

    >>> from quintain.bench.api.epsilon import Epsilon, check_radii
    >>> check_radii([Epsilon.parse(8)], "Linf")
    Traceback (most recent call last):
        ...
    quintain.bench.api.errors.BadParameter: epsilon 8 is beyond every ... mean '8/255'?
    """
    limit = farthest(norm, shape)
    for one in epsilons:
        if one.value > limit * (1 + 1e-9):
            near, value = "", one.value / 255
            if value <= limit:
                text = f"{one.value:g}/255" if one.value.is_integer() else f"{value:.4g}"
                near = f"; did you mean '{text}'?"
            raise BadParameter(
                f"epsilon {one.text} is beyond every image: pixels lie in [0, 1], so that no two "
                f"images are farther apart than {limit:.4g} in {norm}{near}"
            )


def checked_norm(norm: str) -> Norm:
    """Refuse an unknown norm. Raises: BadParameter."""
    check_choice("norm", norm, NORMS)
    return cast(Norm, norm)


def parse_grid(written: object) -> tuple[Epsilon, ...]:
    """Read a grid of epsilons, in ascending order.

    Raises: BadParameter when it is empty, not a list, or names one value twice.

    >>> from quintain.bench.api.epsilon import parse_grid
    >>> [one.text for one in parse_grid(["8/255", "2/255", 0.01])]
    ['2/255', '0.01', '8/255']
    """
    shaped = getattr(written, "ndim", 0) == 1  # an array or a tensor
    if not shaped and not isinstance(written, (list, tuple, range)):
        raise BadParameter(f'epsilons must be a list, not {written!r}: such as ["8/255"]')
    listed = list(cast(Iterable[object], written))
    if not listed:
        raise BadParameter("epsilons must hold at least one value")
    grid = sorted((Epsilon.parse(one) for one in listed), key=lambda one: one.value)
    for lower, upper in pairwise(grid):
        if lower.value == upper.value:
            raise BadParameter(f"epsilons hold one value twice: {lower.text} and {upper.text}")
    return tuple(grid)


def _scalar(written: object) -> object:
    """The number in a tensor without axes; NumPy's numbers print as such, with their own digits."""
    item = getattr(written, "item", None)
    if item is None or type(written).__module__ == "numpy" or getattr(written, "ndim", None) != 0:
        return written
    return item()
