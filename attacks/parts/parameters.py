"""Checks of hyper-parameters: what makes no attack is refused with its name and its value.

Numbers that are None, where a plugin chooses by itself, pass; NaN does not.
"""

from ...bench.api.errors import BadParameter


def at_least(least: int, **given: float | None) -> None:
    """Refuse numbers below a least one. Raises: BadParameter."""
    for name, value in given.items():
        if value is not None and not value >= least:
            raise BadParameter(f"{name} must be at least {least}, not {value}")


def positive(**given: float | None) -> None:
    """Refuse numbers that are not above 0. Raises: BadParameter."""
    for name, value in given.items():
        if value is not None and not value > 0.0:
            raise BadParameter(f"{name} must be positive, not {value}")


def positive_up_to(most: float, **given: float) -> None:
    """Refuse numbers that are not above 0, or above a most. Raises: BadParameter."""
    for name, value in given.items():
        if not 0.0 < value <= most:
            raise BadParameter(f"{name} must be above 0 and at most {most:g}, not {value}")


def share(**given: float) -> None:
    """Refuse numbers that are not between 0 and 1, both excluded. Raises: BadParameter."""
    for name, value in given.items():
        if not 0.0 < value < 1.0:
            raise BadParameter(f"{name} must be between 0 and 1, not {value}")
