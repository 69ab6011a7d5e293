"""Whether a file can be read, or written, before there is work."""

import errno
import os
import stat
import tempfile
from pathlib import Path

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_regular(path: Path) -> None:
    """Refuse what is no regular file. To be called before a file that a user names is opened.

    To open a pipe waits for somebody to write into it, and a device may have no end.

    Raises: OSError, which says what it is instead, or that there is nothing.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        kind = next((name for test, name in _KINDS if test(mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))


def check_writable(path: Path) -> None:
    """Try whether a file can be written, before the work that makes its content.

    Raises: OSError.
    """
    if path.exists():
        check_regular(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass
