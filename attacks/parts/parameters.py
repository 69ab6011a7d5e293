"""Checks of hyper-parameters: what makes no attack is refused with its name and its value."""

from ...bench.api.errors import BadParameter


def at_least(least: int, **given: float) -> None:
    """Refuse numbers below a least one, NaN among them. Raises: BadParameter."""
    for name, value in given.items():
        if not value >= least:
            raise BadParameter(f"{name} must be at least {least}, not {value}")


def positive(**given: float) -> None:
    """Refuse numbers that are not above 0, NaN among them. Raises: BadParameter."""
    for name, value in given.items():
        if not value > 0.0:
            raise BadParameter(f"{name} must be positive, not {value}")


def share(**given: float) -> None:
    """Refuse numbers that are not between 0 and 1, both excluded. Raises: BadParameter."""
    for name, value in given.items():
        if not 0.0 < value < 1.0:
            raise BadParameter(f"{name} must be between 0 and 1, not {value}")
