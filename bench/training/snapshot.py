"""Unfinished trainings: their state in a file, so that a killed one goes on where it was."""

import io
import re
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..api.shared.file_checks import check_regular
from ..store.atomic import meant_for, remove, write_atomically

EVERY = 15.0  # seconds between two states that are kept, at least
_SHARE = 50.0  # and as many times as long as it takes to keep one: 2% of the time
_FORMAT = 1
_CHECKSUM = 4  # bytes


class TrainingSnapshot:
    """Keeps the state of one training, whole or not at all, and takes it away when it is done.

    path: of the first network that a defense trains; the second's has `-2` after its name, ...
    identity: names what is trained; the state of anything else is not gone on with. say: tells
    people, in a line, what was found and what could not be written.

    A disk that is full ends nothing: the last good state stays, and the next is tried later.
    """

    def __init__(self, path: Path, identity: str, say: Callable[[str], None]) -> None:
        self._path, self._identity, self._say = path, identity, say
        self._run = 0
        self._next = 0.0
        self._complained = False

    def recall(self) -> Mapping[str, Any] | None:
        """Begin the next run of the defense: with the state kept for it, if there is one."""
        self._run += 1
        self._next = time.monotonic() + EVERY
        path = self._file()
        try:
            found = _read(path)
        except FileNotFoundError:
            return None
        except Exception:  # whatever a damaged file makes of the reading of it
            self._say(f"{path} is damaged: training restarts")
            return None
        if (found["format"], found["identity"]) != (_FORMAT, self._identity):
            self._say(f"{path} is of another training: this one restarts")
            return None
        self._say(f"training goes on in {found['where']}, from {path}")
        return dict(found["state"])

    def due(self) -> bool:
        """Whether enough time has passed."""
        return time.monotonic() >= self._next

    def keep(self, state: Mapping[str, Any], where: str) -> None:
        """Write the state; say so, once, when that fails."""
        began = time.monotonic()
        content = {
            "format": _FORMAT,
            "identity": self._identity,
            "where": where,
            "state": dict(state),
        }
        try:
            _write(self._file(), content)
        except OSError as error:
            if not self._complained:
                self._say(
                    f"{self._file()} cannot be written: {error.strerror or error}; "
                    "training goes on, and a killed one from the last state that was kept"
                )
            self._complained = True
        now = time.monotonic()
        self._next = now + max(EVERY, _SHARE * (now - began))

    def discard(self) -> None:
        """Take the files away: the training is done, or is to restart.

        Also what `write_atomically` left of them when a process was killed in the middle of it.
        """
        own = re.compile(re.escape(self._path.name) + r"(-\d.*)?")
        for path in self._path.parent.glob("*"):
            if own.fullmatch(meant_for(path.name) or path.name):
                remove(path)

    def _file(self) -> Path:
        number = f"-{self._run}" if self._run > 1 else ""
        return self._path.with_name(f"{self._path.name}{number}")


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """A checksum and what torch makes of the content, whose own checksums it does not look at."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    view = buffer.getbuffer()

    def write(at: Path) -> None:
        with open(at, "wb") as handle:
            handle.write(zlib.crc32(view).to_bytes(_CHECKSUM, "little"))
            handle.write(view)

    write_atomically(path, write)


def _read(path: Path) -> dict[str, Any]:
    check_regular(path)
    content = path.read_bytes()
    body = memoryview(content)[_CHECKSUM:]
    if zlib.crc32(body).to_bytes(_CHECKSUM, "little") != content[:_CHECKSUM]:
        raise ValueError("another checksum")
    found: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    return found
