"""What workers print: kept in a file each, whose end stands beside a cell that fails."""

import faulthandler
import os
import sys
from dataclasses import replace
from pathlib import Path

from ..jobs import Answer, Failed, Job
from ..workspace import run_job

_LINES, _BYTES = 20, 8192  # of a file, at most


def redirect(file: Path) -> None:
    """Send all that this process prints into a file from now on, what C code prints included.

    Also where it was when it crashes, as by a segmentation fault.
    """
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(opened, stream)
    os.close(opened)
    # line by line: nothing may wait in memory when the process is killed
    sys.stdout, sys.stderr = (
        open(stream, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        for stream in (1, 2)
    )
    faulthandler.enable(2)


def run_with_output(job: Job, file: Path) -> Answer:
    """Do a job. Of one that fails, what was printed meanwhile is added to its details."""
    start = file.stat().st_size
    answer = run_job(job)
    if isinstance(answer, Failed):
        return replace(answer, details=answer.details + last_lines(file, start))
    return answer


def last_lines(file: Path, start: int = 0) -> str:
    """The last lines of a worker's file under a heading; nothing where there are none.

    start: bytes that are not looked at.
    """
    try:
        with file.open("rb") as opened:
            end = opened.seek(0, os.SEEK_END)
            opened.seek(max(start, end - _BYTES))
            lines = opened.read().decode("utf-8", "replace").splitlines()[-_LINES:]
    except OSError:
        return ""
    return "\n".join(["", "The last lines of the worker's output:", *lines, ""]) if lines else ""
