"""Which code data may name: what the user has named too, in this process."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadPlugin
from ..shared.safe_text import short
from . import third_party, user_files
from .plugin import KINDS

permitted: set[Path | str] = set()  # files, and names with a colon, that the user asked for


def code_named(name: str) -> Path | str | None:
    """What a name with a colon stands for: a file of Python, or the name where a library's part.

    None for a name that stands for neither.
    """
    reference = user_files.reference(name)
    if reference is not None:
        return reference[0]
    prefix, colon, _ = name.partition(":")
    library = bool(colon) and any(prefix in third_party.prefixes(kind) for kind in KINDS)
    return name if library else None


def refuse_code(spec: Any) -> None:
    """Refuse a spec that comes from data, such as a checkpoint's, and names code at any depth.

    Data may name what is registered. What a name with a colon stands for, a file of Python or
    another library's part, is run only where the user has named it too (`registry.load_named`).

    Raises: BadPlugin, with the option that permits it.
    """
    for text in parts(spec):
        code = code_named(text) if isinstance(text, str) else None
        if code is not None and code not in permitted:
            shown = short(text)
            raise BadPlugin(
                f"'{shown}' is code, which no data may choose to run; if you trust it, name it "
                f"yourself: --plugin {shlex.quote(shown)} (in a suite: plugins = "
                f"[{json.dumps(shown)}])"
            )


def parts(spec: Any) -> Iterator[Any]:
    """A spec and everything in it, at any depth, which may be deeper than Python's stack."""
    todo = [spec]
    while todo:
        one = todo.pop()
        yield one
        if isinstance(one, Mapping):
            todo += [*one.keys(), *one.values()]
        elif isinstance(one, Iterable) and not isinstance(one, str):
            todo += list(one)
