"""Paths as users write them: where they are, and how they are shown."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def relative_to(folder: Path) -> Iterator[None]:
    """Within, relative paths of plugins and data are relative to a folder, such as a suite's."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def located(written: str | os.PathLike[str], folder: Path | None = None) -> Path:
    """Return the path that a user wrote, `~` read as the home folder.

    folder: what a relative path starts from; by default what `relative_to` says, else the current
        folder. Where backslashes are ordinary characters and no file has that very name, they are
        read as Windows writes them: `data\\photos` is `data/photos`.
    """
    base = folder or _folder.get() or Path.cwd()
    path = base / os.path.expanduser(written)
    text = os.fspath(written)
    if os.sep == "/" and "\\" in text and not os.path.lexists(path):
        return base / os.path.expanduser(text.replace("\\", "/"))
    return path


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path's text in which bytes that are not UTF-8 are written as `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
