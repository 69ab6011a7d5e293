"""Hashes: one SHA-256 for bytes, files, tensors and JSON values, and plugins as JSON values."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..api import registry

_HARNESS = f"{__package__.rpartition('.')[0]}."  # bench


def hash_bytes(content: bytes) -> str:
    """Name some bytes."""
    return hashlib.sha256(content).hexdigest()


def hash_file(path: Path) -> str:
    """Name a file's content, of any size. Raises: OSError."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """Name a JSON-able value, whatever the order of its keys."""
    return hash_bytes(json.dumps(value, sort_keys=True).encode())


def configuration(plugin: object) -> Any:
    """JSON-able description of a plugin: kind, registered name, version and fields, at any depth.

    A dataclass that is not registered is described by its name and its fields, the harness's own
    by the fields alone. No module's path is in it: where code lies changes no number. Fields that
    say with `metadata={"in_key": False}` that they change none either are left out.
    """
    fields = getattr(plugin, "__dataclass_fields__", None)
    if fields is not None and not isinstance(plugin, type):
        shown = {
            name: configuration(getattr(plugin, name))
            for name, one in fields.items()
            if one.repr and one.metadata.get("in_key", True)
        }
        return {**_called(type(plugin)), **shown}
    if isinstance(plugin, Mapping):
        return {str(key): configuration(value) for key, value in plugin.items()}
    if isinstance(plugin, (list, tuple)):
        return [configuration(one) for one in plugin]
    if isinstance(plugin, (str, int, float, bool)) or plugin is None:
        return plugin
    return repr(plugin)


def _called(kind: type) -> dict[str, str]:
    """What a dataclass is called in a key."""
    registered = registry.registered(kind)
    version = str(getattr(kind, "version", "1"))
    if registered is not None:
        return {"kind": registered.kind, "plugin": registered.name, "version": version}
    if kind.__module__.startswith(_HARNESS):
        return {}
    return {"type": kind.__qualname__, "version": version}
