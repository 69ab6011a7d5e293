"""What can go wrong that is not a bug of ours: each error is one line that names the remedy."""

import difflib
from collections.abc import Iterable

_LONGEST = 200  # characters of a name that are looked at


class QuintainError(Exception):
    """A user's mistake or bad input. The command line prints it as one line and exits with 2."""


class UnknownPlugin(QuintainError, LookupError):
    """A name that no plugin of that kind has."""


class DuplicatePlugin(QuintainError):
    """Two plugins of one kind under one name."""


class BadPlugin(QuintainError):
    """A plugin that cannot be loaded."""


class BadParameter(QuintainError, ValueError):
    """A hyper-parameter that does not exist, or whose value cannot be used."""


class BadSuite(QuintainError):
    """A suite file that cannot be used."""


class BadData(QuintainError, ValueError):
    """Images or labels that cannot be used."""


class BadCheckpoint(QuintainError):
    """A checkpoint that is missing, damaged, or made for another network."""


class RunDirectoryError(QuintainError):
    """A run directory that cannot be written, or belongs to another suite."""


class AccessDenied(QuintainError, PermissionError):
    """An attack asked its victim for more than its access level allows."""


class CellError(QuintainError):
    """A cell that could not be computed. It is reported as failed, never as robust."""


def reason(error: BaseException) -> str:
    """Say in a few words on one line why something failed, such as a file that cannot be read."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return " ".join(text.split()) or type(error).__name__


def closest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of the known names, whatever its case."""
    lowered = {one.lower(): one for one in known}
    typed = name[:_LONGEST].lower()  # the search takes as long as the square of the length
    near = difflib.get_close_matches(typed, list(lowered), n=1, cutoff=0.5)
    return f"; did you mean '{lowered[near[0]]}'?" if near else ""
