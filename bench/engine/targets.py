"""The rules by which targeted attacks get the classes that they are to reach. No torch here."""

from typing import Literal, get_args

from ..api.errors import BadParameter, closest

RuleName = Literal["random", "least-likely", "next"]
Targets = RuleName | int  # a rule, or one class for all examples
RULES: tuple[RuleName, ...] = get_args(RuleName)
NO_TARGET = -1  # of an example whose label is the one class to be reached


def read_targets(written: object) -> Targets:
    """Read a rule's name or a class. Raises: BadParameter."""
    if isinstance(written, int) and not isinstance(written, bool) and written >= 0:
        return written
    known = next((one for one in RULES if one == written), None)
    if known is None:
        near = closest(written, RULES) if isinstance(written, str) else ""
        raise BadParameter(
            f"targets = {written!r} is none of {', '.join(RULES)}, nor a class such as 0{near}"
        )
    return known


def check_class(targets: Targets | None, n_classes: int) -> None:
    """Refuse one class that there is not. Raises: BadParameter."""
    if isinstance(targets, int) and targets >= n_classes:
        raise BadParameter(f"targets = {targets}: there are {n_classes} classes, 0 and up")
