"""Plugins by names with a colon: other libraries' (`foolbox:LinfPGD`), and `my_file.py:factory`."""

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import metadata
from typing import Any, Protocol

from ..errors import BadPlugin, DuplicatePlugin, UnknownPlugin, closest, errors_as
from . import user_files
from .plugin import KINDS, Plugin
from .source_digest import installed_digest

_SHOWN = 100  # names of a library in one message


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


def provide(kind: str, name: str) -> Plugin:
    """The plugin of a name with a colon.

    Raises: UnknownPlugin for a prefix or a name that there is not; BadPlugin when the package, the
    file or the factory in it is missing or fails.
    """
    found = user_files.reference(name)
    if found is not None:
        path, attribute = found
        made = getattr(user_files.run(path), attribute, None)
        if not callable(made):
            raise BadPlugin(f"plugin file {path} has no factory '{attribute}'")
        return Plugin(kind, name, source=name, target=name, factory=made, file=path)
    return _of_library(_provider(kind, name), kind, name)


def check_name(kind: str, name: str) -> None:
    """Look whether there are a provider or a file for a name with a colon. Imports nothing.

    Raises: UnknownPlugin; BadPlugin.
    """
    found = user_files.reference(name)
    if found is None:
        _provider(kind, name)
    else:
        user_files.module_name(found[0])


def _provider(kind: str, name: str) -> metadata.EntryPoint:
    prefix, known = name.partition(":")[0], prefixes(kind)
    if prefix not in known:
        near = closest(prefix, known) or "."
        raise UnknownPlugin(
            f"unknown {KINDS[kind].singular} '{name}'{near} There are the prefixes: "
            + ", ".join([*(f"{one}:" for one in known), "FILE.py:"])
        )
    return known[prefix]


@cache
def _of_library(entry: metadata.EntryPoint, kind: str, full_name: str) -> Plugin:
    title = f"{KINDS[kind].singular} '{full_name}'"
    name = full_name.partition(":")[2]
    with errors_as(BadPlugin, f"{title}: its provider fails"):
        provider = entry.load()()
    package = provider.package
    if not _is_there(package):
        raise BadPlugin(f"{title} needs the package {package}, not installed: {provider.install}")
    with errors_as(BadPlugin, title):
        names = sorted(provider.names())
        if name not in names:
            shown = ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)
            near = closest(name, names) or "."
            raise UnknownPlugin(f"unknown {title}{near} {package} has: {shown}")
        release = provider.release
        return Plugin(
            kind,
            full_name,
            source=f"{package} {release}",
            target=full_name,
            factory=provider.factory(name),
            release=installed_digest(package) or release,
        )


def forget() -> None:
    """Look everything up again."""
    _of_library.cache_clear()


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (Exception, SystemExit):  # a package around it may break in any way
        return False


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
