"""A plugin's hyper-parameters: what its factory takes, and the values checked against that."""

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ..errors import BadParameter, closest
from .plugin import Kind, Plugin, Spec


@dataclass(frozen=True)
class Schema:
    """A plugin's factory and its hyper-parameters: their annotations in order, and the required.

    adapters: what checks the values of each, made when one is given.
    """

    factory: Callable[..., Any]
    accepted: Mapping[str, Any]
    required: frozenset[str]
    adapters: dict[str, Any]


@lru_cache(maxsize=1024)
def schema_of(plugin: Plugin) -> Schema:
    """Look at a plugin's factory once. Raises: BadPlugin when it cannot be loaded."""
    factory = plugin.load()
    skip = 1 if plugin.kind == "models" else 0  # a model's first argument is what it is built for
    hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    given = list(inspect.signature(factory).parameters.values())[skip:]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [one for one in given if one.kind in kinds]
    return Schema(
        factory,
        {one.name: hints.get(one.name, Any) for one in named},
        frozenset(one.name for one in named if one.default is one.empty),
        {},
    )


def converted(
    label: str, key: str, value: Any, schema: Schema, build: Callable[[Kind, Spec], Any]
) -> Any:
    """A hyper-parameter's value, checked; a plugin of its own is built from its spec by `build`.

    Raises: BadParameter.
    """
    from pydantic import ValidationError

    annotation = schema.accepted[key]
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
            known = [str(one) for one in names]
            near = closest(value, known)
            raise BadParameter(
                f"{label}: {key} = {value!r} is not one of {', '.join(known)}{near}"
            ) from None
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


def plugin_kind(annotation: Any) -> Kind | None:
    """The kind of plugin that a hyper-parameter of this type is, if it is one."""
    from ..attack import Attack, Basis, GradientSource, Loss
    from ..defense import Defense

    seams: tuple[tuple[Any, Kind], ...] = (
        (GradientSource, "gradients"),
        (Loss, "losses"),
        (Basis, "bases"),
        (Attack, "attacks"),
        (Defense, "defenses"),
    )
    return next((kind for seam, kind in seams if annotation is seam), None)
