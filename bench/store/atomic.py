"""Files that are either whole or not there."""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..api.errors import BadParameter
from ..api.shared.file_checks import check_regular

# what file systems of networks and in user space say when they cannot sync, or not a folder
_CANNOT_SYNC = {
    getattr(errno, name)
    for name in ("EINVAL", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EBADF", "EACCES", "EPERM", "EISDIR")
    if hasattr(errno, name)
}
_TEMPORARY = re.compile(r"\.(.+)\.\d+\.tmp")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name, sync it to the disk, give it its name.

    A process killed at any moment leaves the old file or the new one, never a part.

    Raises: OSError, also where something is that is no regular file, such as a device.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        check_regular(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as handle:
            _sync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def meant_for(name: str) -> str | None:
    """The name of the file whose writing was killed, if that left one of this name behind."""
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


def remove(path: Path) -> None:
    """Remove a file if there is one; leave what is something else, or is not ours to remove."""
    with contextlib.suppress(OSError):
        path.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    write_atomically(path, lambda at: at.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_atomically(path, lambda at: at.write_text(text, encoding="utf-8"))


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
        return
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    """Have a file or a folder written to the disk, where the file system can."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def write_output(path: Path, text: str) -> None:
    """Write what a command made into a file.

    Raises: BadParameter when it cannot be written.
    """
    with writing(path):
        write_text(path, text)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a file that cannot be written which one it is.

    Raises: BadParameter.
    """
    try:
        yield
    except OSError as error:
        raise BadParameter(f"{path} cannot be written: {error.strerror or error}") from None
