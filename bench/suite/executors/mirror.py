"""Jobs on a machine that does not see the run's files: these are sent there, and results back.

A worker has folders of its own in the place of the suite's folder, the run directory and the cache.
What lies outside them, such as a data set under an absolute path, must be on its machine as well.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from ...api.errors import QuintainError
from ...store.atomic import write_bytes
from ...store.shards import adversarials_file
from ...training.networks import cached_file
from ..jobs import (
    Answer,
    CellJob,
    CellWritten,
    Failed,
    Job,
    NetworkFound,
    NetworkJob,
    Run,
    ShardJob,
)
from ..lookup import names_files

J = TypeVar("J", bound=Job)

_MOST = 2**29  # bytes of a suite's folder that are sent
_PREFIX = "quintain-worker-"
_ALIVE = ".alive"  # a file in a worker's folder, locked as long as the worker is there
_NEW = 60.0  # seconds in which a worker may not have locked it yet
_RUN_DIRECTORY = "manifest.json"  # what a folder has that is one


@dataclass(frozen=True)
class Inputs:
    """What a job takes from files. out: the run directory.

    suite, files: path -> content, or what stands for it until it is fetched; `suite` is a whole
    mapping, the same for all jobs of a run.
    """

    out: Path
    suite: Any
    files: Mapping[Path, Any]


@dataclass(frozen=True)
class Brought:
    """An answer, and the content of the files that the job wrote, in the order that it did."""

    answer: Answer
    files: Mapping[Path, bytes]


def files_of_suite(run: Run, out: Path) -> dict[Path, bytes]:
    """What the folder of a suite holds that names files: path -> content.

    Hidden files, run directories and the cache are left out. Raises: QuintainError when it is much.
    """
    if not names_files(run.suite):
        return {}
    found: dict[Path, bytes] = {}
    size = 0
    results = {one.resolve() for one in (out, run.cache) if one is not None}
    for path in _below(run.folder, results):
        size += path.stat().st_size
        if size > _MOST:
            raise QuintainError(
                f"a worker does not see {run.folder}, which holds more than {_MOST >> 20} MiB, too "
                "much to be sent: use a file system that all machines share, or a folder of the "
                "suite's own, with the data under an absolute path on each machine"
            )
        found[path] = path.read_bytes()
    return found


def _below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Its files, and those of the folders in it, once each. seen: folders that are left out."""
    seen.add(folder.resolve())
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__pycache__")):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and path.resolve() not in seen and not (path / _RUN_DIRECTORY).exists():
            yield from _below(path, seen)


def files_of_job(job: Job) -> Iterator[Path]:
    """The files, beside the suite's, that a job takes, where they are there."""
    cell = job.cell if isinstance(job, ShardJob) else job
    if job.run.cache is not None:
        keys = (cell.key,) if isinstance(cell, NetworkJob) else cell.network_keys
        yield from (one for key in keys if (one := cached_file(key, job.run.cache)).is_file())
    if isinstance(cell, CellJob):
        yield from (path for paths in cell.earlier.values() for path in paths)
        for path in cell.shards:
            yield path
            if adversarials_file(path).is_file():
                yield adversarials_file(path)


def keep(brought: Brought, run: Run, out: Path) -> Answer:
    """Write the files that a worker sent, each whole or not at all. Raises: QuintainError."""
    for name, content in brought.files.items():
        path = Path(os.path.normpath(name))
        if not any(path.is_relative_to(one) for one in (out, run.cache) if one is not None):
            raise QuintainError(f"a worker sent {path}, which is not in the run directory")
        write_bytes(path, content)
    return brought.answer


class Mirror:
    """Folders of this machine that stand for those of a run."""

    def __init__(self) -> None:
        _remove_abandoned()
        self._base = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._alive = FileLock(self._base / _ALIVE)  # let go of when this process ends, however
        self._alive.acquire()
        self.output = self._base / "output.log"

    def answer(
        self, job: Job, inputs: Inputs, fetch: Callable[[Any], Any], work: Callable[[Job], Answer]
    ) -> Brought:
        """Do a job here, as `work` does it; give what it wrote. fetch: gets a content."""
        places = _Places(self._base, job.run, inputs.out)
        if not places.suite.exists():
            places.suite.mkdir()
            for path, content in fetch(inputs.suite).items():
                _write(places.here(path), content)
        for path, content in inputs.files.items():
            if not (at := places.here(path)).exists():
                _write(at, fetch(content))
        before = places.written()
        answer = work(places.moved(job))
        changed = [path for path, when in places.written().items() if before.get(path) != when]
        changed.sort(key=lambda path: path.stat().st_mtime_ns)
        files = {places.theirs(path): path.read_bytes() for path in changed}
        shutil.rmtree(places.out, ignore_errors=True)  # the cache stays
        return Brought(places.moved_back(answer), files)

    def close(self) -> None:
        """Remove the folders."""
        self._alive.release()
        shutil.rmtree(self._base, ignore_errors=True)


class _Places:
    """Where the files of a run are here, and what they are called there."""

    def __init__(self, base: Path, run: Run, out: Path) -> None:
        self.suite, self.out = base / "suite", base / "out"
        pairs = [(out, self.out), (run.cache, base / "cache"), (run.folder, self.suite)]
        self._pairs = [(theirs, ours) for theirs, ours in pairs if theirs is not None]

    def here(self, path: Path) -> Path:
        """Where a file of theirs is here. One outside the run's folders is where it is."""
        return _moved(path, self._pairs)

    def theirs(self, path: Path) -> Path:
        """The reverse."""
        return _moved(path, [(ours, theirs) for theirs, ours in self._pairs])

    def written(self) -> dict[Path, tuple[int, int]]:
        """The files in the folders that results are written into, and which state they are in."""
        folders = [ours for _, ours in self._pairs if ours != self.suite]
        found = (path for folder in folders for path in folder.rglob("*.*") if path.is_file())
        kept = [path for path in found if path.suffix not in (".lock", ".tmp", ".partial")]
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in kept}

    def moved(self, job: J) -> J:
        """A job of theirs, to be done here."""
        if isinstance(job, ShardJob):
            return replace(job, cell=self.moved(job.cell))
        cache = None if job.run.cache is None else self.here(job.run.cache)
        run = replace(job.run, folder=self.suite, cache=cache)
        if isinstance(job, NetworkJob):
            return replace(job, run=run)
        earlier = {kind: tuple(map(self.here, paths)) for kind, paths in job.earlier.items()}
        return replace(
            job,
            run=run,
            path=self.here(job.path),
            files=frozenset(str(self.here(Path(one))) for one in job.files),
            earlier=earlier,
            shards=tuple(map(self.here, job.shards)),
        )

    def moved_back(self, answer: Answer) -> Answer:
        """An answer from here, as they would have given it."""
        if isinstance(answer, NetworkFound):
            files = frozenset(str(self.theirs(Path(one))) for one in answer.files)
            return replace(answer, files=files)
        if isinstance(answer, CellWritten):
            return replace(answer, cell=replace(answer.cell, path=self.theirs(answer.cell.path)))
        if isinstance(answer, Failed):
            reason, details = answer.reason, answer.details
            for theirs, ours in self._pairs:
                reason = reason.replace(str(ours), str(theirs))
                details = details.replace(str(ours), str(theirs))
            return Failed(reason, details)
        return answer


def _moved(path: Path, pairs: list[tuple[Path, Path]]) -> Path:
    for old, new in pairs:
        if path.is_relative_to(old):
            return new / path.relative_to(old)
    return path


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _remove_abandoned() -> None:
    """Remove the folders of workers that were killed."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_ALIVE}"):
        with suppress(OSError, Timeout):
            if time.time() - lock.stat().st_mtime > _NEW:
                with FileLock(lock, timeout=0):
                    shutil.rmtree(lock.parent, ignore_errors=True)
