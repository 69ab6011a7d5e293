"""Files that are either whole or not there."""

import errno
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

_TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name, sync it to the disk, give it its name.

    A process killed at any moment leaves the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def meant_for(name: str) -> str | None:
    """The name of the file whose writing a kill cut off, if that left one of this name behind."""
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


def check_writable(path: Path) -> None:
    """Try whether a file can be written, before the work that makes its content.

    Raises: OSError.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_atomically(path, lambda at: at.write_text(text, encoding="utf-8"))


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
