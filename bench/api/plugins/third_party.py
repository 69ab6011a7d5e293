"""Plugins by names with a colon: other libraries' (`foolbox:LinfPGD`), and `my_file.py:factory`."""

import importlib
import importlib.util
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from ..errors import BadPlugin, DuplicatePlugin, QuintainError, UnknownPlugin, closest
from . import user_files
from .source_digest import installed_digest

_SHOWN = 100  # names of a library in one message


@dataclass(frozen=True)
class Provided:
    """A factory, where it comes from, and its library's release or the user's file."""

    factory: Callable[..., Any]
    source: str
    release: str
    file: Path | None = None


def prefixes(kind: str) -> Mapping[str, metadata.EntryPoint]:
    """The prefixes that there are for a kind, with the provider of each.

    Raises: DuplicatePlugin when two distributions bring the same prefix.
    """
    found: dict[str, metadata.EntryPoint] = {}
    for entry in sorted(metadata.entry_points(group=f"quintain.providers.{kind}")):
        taken = found.setdefault(entry.name, entry)
        if taken.value != entry.value:
            raise DuplicatePlugin(
                f"the prefix '{entry.name}:' of {kind} is defined twice: "
                f"by {taken.value} and by {entry.value}"
            )
    return found


def provide(kind: str, singular: str, name: str) -> Provided:
    """Make the factory of a name with a colon. singular: what one of the kind is called.

    Raises: UnknownPlugin for a prefix or a name that there is not; BadPlugin when the package, the
    file or the factory in it is missing or fails.
    """
    found = user_files.reference(name)
    if found is not None:
        path, attribute = found
        made = getattr(user_files.run(path), attribute, None)
        if not callable(made):
            raise BadPlugin(f"plugin file {path} has no factory '{attribute}'")
        return Provided(_of_inputs(made) if kind == "models" else made, name, "", path)
    prefix, _, inner = name.partition(":")
    return _of_library(_provider(kind, singular, name), singular, prefix, inner)


def check_name(kind: str, singular: str, name: str) -> None:
    """Look whether there are a provider or a file for a name with a colon. Imports nothing.

    Raises: UnknownPlugin; BadPlugin.
    """
    found = user_files.reference(name)
    if found is None:
        _provider(kind, singular, name)
    else:
        user_files.module_name(found[0])


def _provider(kind: str, singular: str, name: str) -> metadata.EntryPoint:
    prefix, known = name.partition(":")[0], prefixes(kind)
    if prefix not in known:
        near = closest(prefix, known) or "."
        raise UnknownPlugin(
            f"unknown {singular} '{name}'{near} There are the prefixes: "
            + ", ".join([*(f"{one}:" for one in known), "FILE.py:"])
        )
    return known[prefix]


@cache
def _of_library(entry: metadata.EntryPoint, singular: str, prefix: str, name: str) -> Provided:
    title = f"{singular} '{prefix}:{name}'"
    try:
        provider = entry.load()()
    except (Exception, SystemExit) as error:
        raise BadPlugin(f"{title}: its provider fails: {type(error).__name__}: {error}") from error
    package = provider.package
    if not _is_there(package):
        raise BadPlugin(f"{title} needs the package {package}, not installed: {provider.install}")
    try:
        names = sorted(provider.names())
        if name not in names:
            shown = ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)
            near = closest(name, names) or "."
            raise UnknownPlugin(f"unknown {title}{near} {package} has: {shown}")
        release = provider.release
        code = installed_digest(package) or release
        return Provided(provider.factory(name), f"{package} {release}", code)
    except QuintainError:
        raise
    except (Exception, SystemExit) as error:  # the library's own code, or what it needs
        raise BadPlugin(f"{title}: {type(error).__name__}: {error}") from error


def forget() -> None:
    """Look everything up again."""
    _of_library.cache_clear()


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (Exception, SystemExit):  # a package around it may break in any way
        return False


def _of_inputs(factory: Callable[..., Any]) -> Callable[..., Any]:
    """A model's factory that takes what the network is built for, whether it wants to know or not.

    It does when its first parameter is called `inputs` or annotated as InputSpec.
    """
    taken = list(inspect.signature(factory).parameters.values())
    hints = _hints(factory)
    first = taken[0] if taken else None
    wanted = first is not None and (
        first.name == "inputs" or getattr(hints.get(first.name), "__name__", "") == "InputSpec"
    )
    if wanted:
        return factory

    def made(inputs: Any, **parameters: Any) -> Any:
        return factory(**parameters)

    own = [one for one in taken if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    given = inspect.Parameter("inputs", inspect.Parameter.POSITIONAL_ONLY)
    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    made.__signature__ = inspect.Signature([given, *keyword])  # type: ignore[attr-defined]
    made.__annotations__ = {one.name: hints[one.name] for one in own if one.name in hints}
    made.__doc__ = factory.__doc__
    return made


def _hints(factory: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError, AttributeError):  # names that only a type checker knows
        return {}


class Provider(Protocol):
    """Makes plugins called `prefix:name`: another library's attacks, or its models.

    Registered as a class without arguments, by entry point under its prefix, in the group
    `quintain.providers.attacks` or `quintain.providers.models`. The first line of its docstring is
    shown by `quintain list`. Its module must not import the library: it may not be installed.

    package: the library's module. install: the command that installs it.
    """

    package: str
    install: str

    @property
    def release(self) -> str:
        """The library's version. Results are kept apart by it."""

    def names(self) -> Iterable[str]:
        """What there is. Only called when the package is there, as `factory` is."""

    def factory(self, name: str) -> Callable[..., Any]:
        """The plugin of a name: its keyword parameters are its hyper-parameters.

        A model's factory may have an attribute `brings_weights`, called with the hyper-parameters:
        whether the network then comes with weights, and is not to be trained.
        """
