"""What a run writes down, without the names of its author, home folder and computer.

Run directories are handed on and published. Only the copy of the suite stays as it was written.
"""

import contextlib
import getpass
import os
import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_END = r"(?![\w-]|\.\w)"  # of a path
_PART = rf"(?<=[/\\]){{}}(?=[/\\]|{_END})"  # a name, as a part of a path


def private(text: str, folder: Path | None = None) -> str:
    """Text such as an error's message or traceback, without who ran it where.

    Paths below the folder, usually the suite's, become relative to it, those in the home folder
    begin with `~`; the user's and the computer's names in other paths become USER and HOST.
    """
    if "/" not in text and "\\" not in text:  # no path
        return text
    if folder is not None:
        for known in dict.fromkeys((str(folder), str(folder.resolve()))):
            if len(Path(known).parts) > 1:
                text = re.sub(rf"{re.escape(known)}(?:[/\\]|{_END})", "", text)
    for home in _homes():
        text = re.sub(rf"{re.escape(home)}(?=[/\\]|{_END})", "~", text)
    for name, shown in _names():
        text = re.sub(_PART.format(re.escape(name)), shown, text)
    return text


def private_values(value: Any) -> Any:
    """The same for every text in a JSON-able value."""
    if isinstance(value, str):
        return private(value)
    if isinstance(value, Mapping):
        return {key: private_values(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [private_values(one) for one in value]
    return value


def path_from(folder: Path, path: Path) -> str:
    """How to get from one folder to a file; its name alone if the way gives names away."""
    try:
        way = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return path.name
    telling = {name for name, _ in _names()} | {Path(one).name for one in _homes()}
    return path.name if telling & set(Path(way).parts) else way


@cache
def _homes_of(variables: tuple[str, ...]) -> tuple[str, ...]:
    found = [Path(one) for one in variables if one]
    with contextlib.suppress(RuntimeError):  # there is none
        found.append(Path.home())
    both = [str(one) for home in found for one in (home, home.resolve())]
    return tuple(dict.fromkeys(one for one in both if len(Path(one).parts) > 1))


def _homes() -> tuple[str, ...]:
    """The home folder, as it is called and as it is."""
    return _homes_of(tuple(os.environ.get(one, "") for one in ("HOME", "USERPROFILE")))


def _names() -> list[tuple[str, str]]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user on this system
        user = ""
    return [(name, shown) for name, shown in ((user, "USER"), (platform.node(), "HOST")) if name]
