"""Progress on a terminal: a bar where there is one, plain lines where the output is a file."""

import sys
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from .safe_text import plain
from .streams import is_terminal, note

_quiet = False


def be_quiet(quiet: bool) -> None:
    """Whether this process shows no progress from now on."""
    global _quiet
    _quiet = quiet


class _Screen:
    """The terminal that bars are drawn on. One that has gone away is drawn on in vain."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Screen) and self._stream is other._stream

    __hash__ = None  # type: ignore[assignment]

    def write(self, text: str) -> None:
        """Write what can be written."""
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Send it."""
        with suppress(OSError, ValueError):
            self._stream.flush()


class Bar:
    """A progress bar on stderr that shows one piece of work after another."""

    def __init__(self, title: str) -> None:
        self.title = plain(title)
        self._bar: Any = None
        self._note = ""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`."""
        if self._bar is None or self._bar.total != total or done < self._bar.n:
            self.close()
            self._bar = tqdm(
                total=total,
                initial=done,  # so that what was there already does not count for the rate
                desc=self.title,
                leave=False,
                file=_Screen(sys.stderr),
                disable=_quiet or not is_terminal(sys.stderr),
                dynamic_ncols=True,
            )
            self._note = ""
        if note != self._note:
            self._bar.set_postfix_str(plain(note), refresh=False)
            self._note = note
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def say(text: str) -> None:
    """Print a line to stderr at once, without tearing a bar."""
    if _quiet:
        return
    if not is_terminal(sys.stderr):
        note(text)
        return
    with tqdm.external_write_mode(file=_Screen(sys.stderr)):
        note(text)
