"""TOML as users write it, also from sources that mean harm: read, or refused in one line."""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_DEEPEST = 32  # tables and lists within one another


class BadTOML(ValueError):
    """A text that is no TOML, or holds what nothing here can use."""


def read_toml(text: str, parse_float: Callable[[str], Any] = float) -> dict[str, Any]:
    """Read a text.

    Raises: BadTOML, in a line that says what is wrong: bad syntax, numbers of thousands of digits,
    tables nested deeper than 32, a text with a NUL character, which no file's name can hold.
    """
    try:
        found = tomllib.loads(text, parse_float=parse_float)
    except tomllib.TOMLDecodeError as error:
        raise BadTOML(str(error)) from None
    except ValueError:
        raise BadTOML("a number has too many digits") from None
    except RecursionError:
        raise BadTOML(_too_deep()) from None
    for value in _texts(found):
        if "\0" in value:
            raise BadTOML(f"{shortened(value)} holds a NUL character")
    return found


def shortened(value: object, longest: int = 200) -> str:
    """A value as it is written in Python, cut where it is long.

    Raises: nothing, whatever the value.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; lists within lists
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= longest else f"{text[:longest]}..."


def _texts(found: Mapping[str, Any]) -> Iterator[str]:
    """Every key and text at any depth. Raises: BadTOML when that is too deep."""
    waiting: list[tuple[Any, int]] = [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise BadTOML(_too_deep())
        if isinstance(value, Mapping):
            yield from value
            waiting += [(one, depth + 1) for one in value.values()]
        elif isinstance(value, list):
            waiting += [(one, depth + 1) for one in value]
        elif isinstance(value, str):
            yield value


def _too_deep() -> str:
    return f"tables or lists are nested deeper than {_DEEPEST}"
