"""What a run says while it goes on: a line for each finished cell, and a log of them."""

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ..api.shared.progress_bars import say
from ..api.shared.safe_text import lines
from ..store.privacy import private

_SILENCE = 10.0  # seconds without a line, after which a finished part is worth one


class Lines:
    """A line for each finished piece of work, with the time since the start, also into a log.

    log: a file that lines are added to, with the date; what cannot be written is left out. Where
    it is known how many pieces there are (`add`), a line says about how long the rest will take.
    examples: of each piece, where parts of one are done by themselves (`part`). running: how many
    pieces and parts are being worked on beside the one that a line is about.
    """

    def __init__(self, log: Path | None = None, examples: int = 1) -> None:
        self._began = time.monotonic()
        self._last = self._began
        self._log = log
        self._examples = examples
        self._parts = 0
        self._in_parts = 0  # examples that are done, of pieces that are not
        self._total = 0
        self._done = 0
        self._failed = 0
        self.running = 0

    def say(self, text: str) -> None:
        """Print a line to stderr at once, without tearing a bar."""
        self._say(f"[{self._elapsed:6.1f} s] {text}")

    def add(self, count: int) -> None:
        """There is more to be done than was known."""
        self._total += count

    def done(self, text: str, in_parts: int = 0) -> None:
        """A piece is done: say so, and what is left. in_parts: examples of it that were parts."""
        self._done += 1
        self._in_parts -= in_parts
        self._total = max(self._total, self._done)
        self._say(f"{self._so_far()} {text}")

    def failed(self, text: str, in_parts: int = 0) -> None:
        """A piece has failed, and counts as done."""
        self._failed += 1
        self.done(text, in_parts)

    def part(self, examples: int) -> None:
        """A part of a piece is done: say so, where nothing has been said for a while."""
        self._parts += 1
        self._in_parts += examples
        if time.monotonic() - self._last > _SILENCE:
            rate = self._share * self._examples / self._elapsed
            self._say(f"{self._so_far()} {self._parts} shards done, {rate:.3g} examples a second")

    def _so_far(self) -> str:
        """How many pieces are done, failed and running, the time, and about how much is left."""
        left = self._elapsed / self._share * max(0.0, self._total - self._share)
        rest = f", about {_duration(left)} left" if self._done < self._total else ""
        count = f"{self._done:{len(str(self._total))}} of {self._total}"
        failed = f", {self._failed} failed" if self._failed else ""
        running = f", {self.running} running" if self.running else ""
        return f"[{count}{failed}{running}, {_duration(self._elapsed)}{rest}]"

    @property
    def _share(self) -> float:
        """Pieces that are done, and the done shares of others."""
        return self._done + self._in_parts / self._examples

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _say(self, line: str) -> None:
        say(line)
        self._last = time.monotonic()
        if self._log is not None:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            with suppress(OSError), self._log.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{now} {lines(private(line))}\n")


def _duration(seconds: float) -> str:
    """A time for people.

    >>> _duration(8.26), _duration(95), _duration(7300)
    ('8.3 s', '1 min 35 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
