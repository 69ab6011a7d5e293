"""Hyper-parameters of other libraries' classes, as the registry checks them."""

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from types import NoneType, UnionType
from typing import Any, Literal

_PLAIN = {int, float, str, bool, NoneType}


def parameters_of(function: Callable[..., Any], *, without: Collection[str]) -> dict[str, Any]:
    """Name -> (annotation, default), of what a user may set.

    Annotations that no TOML value can have, or that are missing, give way to the default's type;
    where that tells nothing either, any value is let through to the library.
    """
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # names that only a type checker knows
        hints = {}
    found: dict[str, Any] = {}
    for name, one in inspect.signature(function).parameters.items():
        skipped = name == "self" or name in without
        if skipped or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        hint = hints.get(name)
        if hint is None or not _is_plain(hint):
            hint = _type_of(one.default)
        found[name] = (hint, one.default)
    return found


def factory(
    build: Callable[[Mapping[str, Any]], Any], parameters: Mapping[str, Any], document: str
) -> Callable[..., Any]:
    """A plugin's factory: a function with these keyword parameters, which builds of what is given.

    parameters: as parameters_of returns them.
    """

    def made(**given: Any) -> Any:
        return build(given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    made.__doc__ = document
    made.__annotations__ = {name: hint for name, (hint, _) in parameters.items()}
    made.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, keyword, default=default, annotation=hint)
            for name, (hint, default) in parameters.items()
        ]
    )
    return made


def _is_plain(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, UnionType):
        return all(_is_plain(one) for one in typing.get_args(hint))
    return hint in _PLAIN or origin is Literal


def _type_of(default: Any) -> Any:
    kind = type(default)
    if kind is int or kind is float:
        return float | int
    return kind if kind in (bool, str) else Any
