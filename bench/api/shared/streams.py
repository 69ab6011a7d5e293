"""What people read: standard output and standard error, which may be full, closed or not there."""

import contextlib
import os
import shutil
import sys
from typing import TextIO

from ..errors import QuintainError, reason
from .safe_text import lines


class OutputError(QuintainError):
    """Standard output that cannot be written."""


def show(text: str, end: str = "\n") -> None:
    """Print to standard output. A reader that has gone away, as after `| head`, ends nothing.

    Raises: OutputError when it cannot be written otherwise, for example on a full disk.
    """
    stream = sys.stdout
    if stream is None:  # as under pythonw
        return
    try:
        _write(stream, text + end)
    except BrokenPipeError:
        discard(stream)
    except (OSError, ValueError) as error:
        discard(stream)
        raise OutputError(f"standard output cannot be written: {reason(error)}") from None


def line_width() -> int | None:
    """How many characters a line of standard output has; None where no terminal cuts it."""
    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None


def note(text: str) -> None:
    """Print a line to standard error where there is one. No work is lost because it is not read."""
    stream = sys.stderr
    if stream is None:
        return
    try:
        _write(stream, text + "\n")
    except (OSError, ValueError):
        discard(stream)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody watches a stream; a stream that is closed or missing is no terminal."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def open_standard_streams() -> None:
    """Open the null device where a standard stream was closed by who started this process.

    Otherwise the next file that is opened gets its number, and what libraries print goes into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)


def discard(stream: TextIO | None) -> None:
    """Send a stream to the null device: what it still holds is written when Python ends."""
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)


def _write(stream: TextIO, text: str) -> None:
    """Write and flush; what would steer a terminal, or is not in its encoding, is escaped."""
    text = lines(text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
