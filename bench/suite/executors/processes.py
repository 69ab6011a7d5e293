"""Jobs in several processes of this machine."""

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ...api.shared.interrupts import interrupts_ignored
from ...api.shared.progress_bars import say
from ..jobs import Answer, Job, NetworkFound
from .memory import fits_another
from .output import last_lines, redirect, run_with_output
from .scheduling import LIFETIME, Answers, Lost, NextJob, Pool, schedule

_CONTEXT = get_context("spawn")  # nothing of this process, such as CUDA, is in a worker
_PATIENCE = 5.0  # seconds that a worker has to end when it is told to


class Processes:
    """Does jobs in a number of processes. One that is killed loses nothing but its time.

    Each is started afresh when there is a job for it, keeps a plan, the data and networks from job
    to job, and ends with this process, however that ends. Where the jobs are for "cuda" and there
    are several GPUs, the processes take turns with them. One that would not fit into memory is not
    started.

    workers: at most; None for one for each GPU that jobs are for, or else for each core.
    """

    def __init__(self, workers: int | None, device: torch.device) -> None:
        self._gpus = visible_gpus() if device == torch.device("cuda") else []
        there = usable_cores() if device.type == "cpu" else len(self._gpus)
        self._count = workers or max(there, 1)
        self._device = device
        self._warned = False
        self._full = False  # no other process would fit into memory
        self.name = "processes"
        self.concurrent = self._count > 1

    def run(self, next_job: NextJob) -> Answers:
        """Do jobs until there are none; a job whose process is killed is done again."""
        numbers = count()
        with tempfile.TemporaryDirectory(prefix="quintain-") as folder:

            def start(place: int) -> _Worker:
                return _Worker(self._gpu(place), Path(folder, f"{next(numbers)}.log"))

            pool = Pool(self._count, start, _ready, self._has_memory, LIFETIME)
            for answered in schedule(next_job, pool):
                self._warn_of_threads(answered.answer)
                yield answered

    def _has_memory(self, workers: "list[_Worker]") -> bool:
        """Whether another process would fit. When one would not, a line says so, and none will."""
        if not self._full and not fits_another(one.process for one in workers):
            self._full = True
            there = len(workers)
            say(f"no memory for more than {there} process{'es' if there > 1 else ''}")
        return not self._full

    def _warn_of_threads(self, answer: Answer) -> None:
        """Say, once, where processes have more threads than there are cores: these then wait."""
        if self._warned or self._device.type != "cpu" or not isinstance(answer, NetworkFound):
            return
        threads, cores = answer.about["threads"], usable_cores()
        if threads > 1 and self._count * threads > cores:
            self._warned = True
            say(
                f"{self._count} processes with {threads} threads each wait for one another on "
                f"{cores} cores: OMP_NUM_THREADS=1 is faster"
            )

    def _gpu(self, place: int) -> str | None:
        """The GPU of the worker in a place, where they take turns with several."""
        return self._gpus[place % len(self._gpus)] if self._gpus else None


def usable_cores() -> int:
    """The number of cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU that this process may use."""
    named = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    count = torch.cuda.device_count()
    return named[:count] if any(named) else [str(one) for one in range(count)]


def _ready(workers: "list[_Worker]") -> "list[_Worker]":
    ready = connection.wait([worker.connection for worker in workers])
    return [worker for worker in workers if worker.connection in ready]


class _Worker:
    """A process, and the job that it is at work on. held: the network that it has in memory.

    gpu: the one that it sees, where it sees one alone. output: the file that it prints into.
    """

    starting = False  # a job can be sent at once: it waits in the pipe

    def __init__(self, gpu: str | None, output: Path) -> None:
        self.job: Job | None = None
        self.held: int | None = None
        self._gpu = gpu
        self._output = output
        self._start()

    @property
    def process(self) -> int | None:
        """The number of the process."""
        return self._process.pid

    def _start(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_work,
            args=(theirs, torch.get_num_threads(), self._output),
            name="quintain worker",
        )
        with interrupts_ignored(), _seeing(self._gpu):
            self._process.start()
        theirs.close()

    def begin(self, job: Job) -> None:
        """Send a job."""
        self.job, self.held = job, job.number
        with suppress(OSError):  # it is gone: that shows when its answer is asked for
            self.connection.send(job)

    def answer(self) -> Answer | Lost:
        """Take the answer."""
        self.job = None
        try:
            found: Answer = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return Lost(_ending(self._process.exitcode), last_lines(self._output))
        return found

    def end(self) -> None:
        """End the process, whatever it does."""
        self.connection.close()
        self._process.terminate()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _ending(code: int | None) -> str:
    """How a process ended."""
    if code is not None and code < 0:
        return f"was ended by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with status {code}"


@contextmanager
def _seeing(gpu: str | None) -> Iterator[None]:
    """Within, processes are started that see one GPU alone, which they call the first."""
    name, before = "CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpu is not None:
        os.environ[name] = gpu
    try:
        yield
    finally:
        if gpu is not None:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before


def _work(jobs: Connection, threads: int, output: Path) -> None:
    """What a worker does: jobs, until there are no more.

    threads: as many as the parent has, where a network is not small. They change how sums are
    rounded. output: the file that it prints into.
    """
    redirect(output)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    while True:
        try:
            job = jobs.recv()
        except EOFError:
            return
        with suppress(BrokenPipeError):  # the parent has gone
            jobs.send(run_with_output(job, output))


def _end_with_parent() -> None:
    """End this process when the one that started it does, in the middle of whatever it is at."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
