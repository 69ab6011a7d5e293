"""Whether another worker would fit into memory. Known on Linux; elsewhere none is refused."""

import os
from collections.abc import Iterable
from pathlib import Path

_SPARE = 1.25  # a worker may come to need more than the largest one has now


def fits_another(processes: Iterable[int | None]) -> bool:
    """Whether there is memory for one more worker beside those that are there.

    processes: their numbers. Each will need as much as the largest, or as this process.
    """
    there = [size for one in processes if (size := resident(one)) is not None]
    free, own = available(), resident(os.getpid())
    if free is None or own is None:
        return True
    needed = max([own, *there])
    promised = sum(needed - one for one in there)  # to those that have only just started
    return free - promised > _SPARE * needed


def resident(process: int | None) -> int | None:
    """Bytes of memory that a process has; None where nobody knows."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def available() -> int | None:
    """Bytes that this machine, or the container that this process is in, has left."""
    found = [one for one in (_of_machine(), _of_container()) if one is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _of_container() -> int | None:
    """What a control group, version 2, has left. Its caches could be freed: they do not count."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((group / "memory.current").read_text())
        said = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(limit) - used + int(said.get("inactive_file", 0))
    except (OSError, ValueError):
        return None
