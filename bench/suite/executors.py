"""Who does the jobs of a run: this process, or several."""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from typing import Protocol, TypeVar

import torch

from .jobs import Answer, Failed, Job, run_job

NextJob = Callable[[int | None], Job | None]
Answers = Generator[tuple[Job, Answer]]

ATTEMPTS = 3  # at a job, where the process that was at work on it was killed
_CONTEXT = get_context("spawn")  # nothing of this process, such as CUDA, is in a worker
_PATIENCE = 5.0  # seconds that a worker has to end when it is told to


class Executor(Protocol):
    """Does jobs. Whoever does them, the records are the same."""

    def run(self, next_job: NextJob) -> Answers:
        """Do jobs until there are none, and none is at work; give each with its answer.

        next_job: hands one out, best for who has a certain network in memory (the number of its
        defended model); None where there is none now. It may have more after an answer was taken.
        """


class InProcess:
    """Does one job after the other, here."""

    def run(self, next_job: NextJob) -> Answers:
        """Do jobs until there are none."""
        held = None
        while (job := next_job(held)) is not None:
            held = job.number
            yield job, run_job(job)


class Worker(Protocol):
    """Does one job at a time, somewhere else. One that is lost is replaced by itself.

    job: that it is at work on. held: the network that it has in memory.
    """

    job: Job | None
    held: int | None

    def begin(self, job: Job) -> None:
        """Send a job."""

    def answer(self) -> tuple[Job, Answer] | None:
        """Take the answer of one that is ready; None where it is lost, and begins the job again."""

    def end(self) -> None:
        """End it, whatever it does."""


W = TypeVar("W", bound=Worker)


def schedule(
    next_job: NextJob, count: int, start: Callable[[], W], ready: Callable[[list[W]], list[W]]
) -> Answers:
    """Have up to `count` workers do jobs until there are none, and end them.

    start: makes a worker, when there is a job for it. ready: waits until some of those at work have
    an answer, or are lost, and says which.
    """
    workers: list[W] = []
    try:
        while True:
            idle = [worker for worker in workers if worker.job is None]
            while idle or len(workers) < count:
                job = next_job(idle[0].held if idle else None)
                if job is None:
                    break
                if not idle:
                    workers.append(start())
                    idle = workers[-1:]
                idle.pop(0).begin(job)
            at_work = [worker for worker in workers if worker.job is not None]
            if not at_work:
                return
            for worker in ready(at_work):
                if (done := worker.answer()) is not None:
                    yield done
    finally:
        for worker in workers:
            worker.end()


class Processes:
    """Does jobs in a number of processes. One that is killed loses nothing but its time.

    Each is started afresh when there is a job for it, keeps a plan, the data and networks from job
    to job, and ends with this process, however that ends.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def run(self, next_job: NextJob) -> Answers:
        """Do jobs until there are none; a job whose process is killed is done again."""
        return schedule(next_job, self._count, _Worker, _ready)


def _ready(workers: "list[_Worker]") -> "list[_Worker]":
    ready = connection.wait([worker.connection for worker in workers])
    return [worker for worker in workers if worker.connection in ready]


class _Worker:
    """A process, and the job that it is at work on. held: the network that it has in memory."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.held: int | None = None
        self._attempts = 0
        self._start()

    def _start(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_work, args=(theirs, torch.get_num_threads()), name="quintain worker"
        )
        with _interrupts_ignored():
            self._process.start()
        theirs.close()

    def begin(self, job: Job) -> None:
        """Send a job."""
        self.job, self._attempts = job, 0
        self._send()

    def _send(self) -> None:
        self._attempts += 1
        self.held = self.job.number if self.job is not None else None
        with suppress(OSError):  # it is gone: that shows when its answer is asked for
            self.connection.send(self.job)

    def answer(self) -> tuple[Job, Answer] | None:
        """Take the answer. None where the process has ended, and a new one begins the job again."""
        job = self.job
        assert job is not None
        try:
            found: Answer = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            ending = _ending(self._process.exitcode)
            self.connection.close()
            self._start()
            if self._attempts < ATTEMPTS:
                self._send()
                return None
            self.held = None
            found = Failed(f"the process at work on it {ending}, {ATTEMPTS} times")
        self.job = None
        return job, found

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
def _interrupts_ignored() -> Iterator[None]:
    """Within, processes are started that no Ctrl-C reaches: who started them ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(jobs: Connection, threads: int) -> None:
    """What a worker does: jobs, until there are no more.

    threads: as many as the parent has, where a network is not small. They change how sums are
    rounded.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    while True:
        try:
            job = jobs.recv()
        except EOFError:
            return
        with suppress(BrokenPipeError):  # the parent has gone
            jobs.send(run_job(job))


def _end_with_parent() -> None:
    """End this process when the one that started it does, in the middle of whatever it is at."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
