"""A plugin's hyper-parameters: what its factory takes, and the values checked against that."""

import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ..errors import BadParameter, check_choice
from .plugin import KINDS, Plugin, Spec
from .user_files import reference

_API = f"{__package__.rpartition('.')[0]}."  # where contracts are


@dataclass(frozen=True)
class Schema:
    """A plugin's factory and its hyper-parameters, in order: their annotations and defaults.

    A default is `inspect.Parameter.empty` where a value must be given. adapters: what checks the
    values of each, made when one is given.
    """

    factory: Callable[..., Any]
    accepted: Mapping[str, tuple[Any, Any]]
    adapters: dict[str, Any]


@lru_cache(maxsize=1024)
def schema_of(plugin: Plugin) -> Schema:
    """Look at a plugin's factory once. Raises: BadPlugin when it cannot be loaded.

    The first argument of a model's factory, what the network is built for, is no hyper-parameter.
    One that is named by its file need not have it.
    """
    factory = plugin.load()
    hints = _hints(factory)
    given = list(inspect.signature(factory).parameters.values())
    if plugin.kind == "models" and (reference(plugin.name) is None or _is_inputs(given, hints)):
        given = given[1:]
    elif plugin.kind == "models":
        factory = _without_inputs(factory)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    accepted = {
        one.name: (hints.get(one.name, Any), one.default) for one in given if one.kind in kinds
    }
    return Schema(factory, accepted, {})


def _hints(factory: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError, AttributeError):  # names that only a type checker knows
        return {}


def _is_inputs(given: Sequence[inspect.Parameter], hints: Mapping[str, Any]) -> bool:
    """Whether the first parameter is what a network is built for, by its name or annotation."""
    first = given[0].name if given else ""
    return first == "inputs" or getattr(hints.get(first), "__name__", "") == "InputSpec"


def _without_inputs(factory: Callable[..., Any]) -> Callable[..., Any]:
    return lambda inputs, **parameters: factory(**parameters)


def converted(
    label: str, key: str, value: Any, schema: Schema, build: Callable[[str, Spec], Any]
) -> Any:
    """A hyper-parameter's value, checked; a plugin of its own is built from its spec by `build`.

    Raises: BadParameter.
    """
    from pydantic import ValidationError

    annotation = schema.accepted[key][0]
    kind = plugin_kind(annotation)
    if kind is not None:
        return build(kind, value) if isinstance(value, (str, Mapping)) else value
    if key not in schema.adapters:
        schema.adapters[key] = _adapter(annotation)
    adapter = schema.adapters[key]
    if adapter is None:
        return value
    try:
        return adapter.validate_json(json.dumps(value, default=_plain), strict=True)
    except (ValidationError, TypeError) as error:
        names = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
        if names and isinstance(value, str):
            check_choice(f"{label}: {key}", value, map(str, names))
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        shown = inspect.formatannotation(annotation)
        raise BadParameter(f"{label}: {key} = {value!r} is not {shown}: {problem}") from None


def _plain(value: Any) -> Any:
    """A number of NumPy's or torch's as one of Python's. Raises: TypeError for what is none."""
    if getattr(value, "ndim", None) != 0:
        raise TypeError(f"a {type(value).__name__} is no plain value")
    return value.item()


def _adapter(annotation: Any) -> Any:
    """What checks values of an annotation; None for one that pydantic has no schema for."""
    from pydantic import ConfigDict, TypeAdapter

    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:  # then the values are the plugin's own affair
        return None


def plugin_kind(annotation: Any) -> str | None:
    """The kind of plugin that a hyper-parameter of this type is, if it is one."""
    name = f"{getattr(annotation, '__module__', '')}.{getattr(annotation, '__qualname__', '')}"
    contract = name.removeprefix(_API)
    return next((kind for kind, one in KINDS.items() if one.contract == contract), None)
