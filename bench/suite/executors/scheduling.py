"""What executors have in common: how jobs are handed to workers, and those done in this process."""

import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from ...api.errors import QuintainError
from ..jobs import Answer, Failed, Job
from ..workspace import run_job

NextJob = Callable[[int | None], Job | None]

ATTEMPTS = 3  # at a job, where the worker that was at work on it was lost
LIFETIME = 3600.0  # seconds after which a worker is replaced: the code of plugins may leak memory


class Answered(NamedTuple):
    """A job with its answer. running: how many others are being worked on."""

    job: Job
    answer: Answer
    running: int = 0


Answers = Generator[Answered]


class Executor(Protocol):
    """Does jobs. Whoever does them, the records are the same.

    name: what manifests call it. concurrent: whether several are at work at once, so that it is
    worth dividing a long one.
    """

    name: str
    concurrent: bool

    def run(self, next_job: NextJob) -> Answers:
        """Do jobs until there are none, and none is at work; give each with its answer.

        next_job: hands one out, best for who has a certain network in memory (the number of its
        defended model); None where there is none now. It may have more after an answer was taken.
        """


class InProcess:
    """Does one job after the other, here."""

    name = "in-process"
    concurrent = False

    def run(self, next_job: NextJob) -> Answers:
        """Do jobs until there are none."""
        held = None
        while (job := next_job(held)) is not None:
            held = job.number
            yield Answered(job, run_job(job))


@dataclass(frozen=True)
class Lost:
    """A worker is no more, and how that came, as `was ended by signal 9`.

    details: the last lines of its output, where they are known. begun: whether it had begun the
    job that it was sent: one that ends as it should may be sent a job at that very moment.
    """

    reason: str
    details: str = ""
    begun: bool = True


class Worker(Protocol):
    """Does one job at a time, somewhere else.

    job: that it is at work on. held: the network that it has in memory. starting: whether it has
    yet to begin, and may have to wait for a place until then; it takes no job before.
    """

    job: Job | None
    held: int | None
    starting: bool

    def begin(self, job: Job) -> None:
        """Send a job."""

    def answer(self) -> Answer | Lost | None:
        """Take the answer of one that is ready; None where it has started, and waits for a job."""

    def end(self) -> None:
        """End it, whatever it does."""


W = TypeVar("W", bound=Worker)


@dataclass(frozen=True)
class Pool(Generic[W]):
    """Where workers come from.

    count: how many there may be at once. start: makes a worker, given the smallest number from 0
    that no other has. ready: waits until some of those at work or starting have an answer, have
    started, or are lost, and says which; after a while it may say that none is. more: whether there
    is room for another one beside those that there are, if there are any. lifetime: seconds after
    which a worker is ended, once its job is done; another one takes its place.
    """

    count: int
    start: Callable[[int], W]
    ready: Callable[[list[W]], list[W]]
    more: Callable[[list[W]], bool] = lambda workers: True
    lifetime: float = math.inf
    clock: Callable[[], float] = time.monotonic


def schedule(next_job: NextJob, pool: Pool[W]) -> Answers:
    """Have workers do jobs until there are none, and end them.

    A worker is started when there is a job for it. A job whose worker is lost is done again by
    another one, up to three times.

    Raises: QuintainError where workers are lost before they can begin.
    """
    schedule = _Schedule(next_job, pool)
    try:
        while True:
            schedule.hand_out()
            schedule.start_workers()
            if schedule.is_over():
                return
            for worker in pool.ready(schedule.busy):
                answered = schedule.take_answer(worker)
                if answered is not None:
                    yield answered
    finally:
        schedule.end_workers()


class _Schedule(Generic[W]):
    """The workers, and the jobs that are handed out to them."""

    def __init__(self, next_job: NextJob, pool: Pool[W]) -> None:
        self._next_job = next_job
        self._pool = pool
        self._workers: dict[int, W] = {}
        self._began: dict[int, float] = {}  # when each worker was started
        self._waiting: deque[Job] = deque()  # jobs that nobody is at work on yet
        self._losses: Counter[int] = Counter()  # by the identity of the job
        self._running = 0
        self._false_starts = 0

    def is_over(self) -> bool:
        """Whether no job is left, and none is at work."""
        if not self._waiting and not self._running and (job := self._next_job(None)) is not None:
            self._waiting.append(job)  # all workers are still starting
        return not self._waiting and not self._running

    @property
    def busy(self) -> list[W]:
        """The workers that are starting, or at work."""
        return [one for one in self._workers.values() if one.starting or one.job is not None]

    def hand_out(self) -> None:
        """Give jobs to the workers that have none."""
        for worker in self._workers.values():
            if worker.job is None and not worker.starting:
                job = self._waiting.popleft() if self._waiting else self._next_job(worker.held)
                if job is None:
                    return
                self._begin(worker, job)

    def start_workers(self) -> None:
        """Start workers while there are jobs for them: one job for each that is starting."""
        while self._has_room():
            starting = sum(worker.starting for worker in self._workers.values())
            if starting > len(self._waiting):
                return
            if starting == len(self._waiting):
                if (job := self._next_job(None)) is None:
                    return
                self._waiting.append(job)
            number = next(one for one in itertools.count() if one not in self._workers)
            worker = self._workers[number] = self._pool.start(number)
            self._began[number] = self._pool.clock()
            if not worker.starting:
                self._begin(worker, self._waiting.popleft())

    def _has_room(self) -> bool:
        there = [*self._workers.values()]
        return not there or (len(there) < self._pool.count and self._pool.more(there))

    def take_answer(self, worker: W) -> Answered | None:
        """Take what a worker has come to; None where that is no answer.

        Raises: QuintainError.
        """
        job, found = worker.job, worker.answer()
        self._running -= job is not None
        if isinstance(found, Lost):
            self._end(worker)
            found = self._lost(job, found)
        if job is None or found is None:
            return None
        self._false_starts = 0
        self._losses.pop(id(job), None)
        if self._pool.lifetime < math.inf:
            self._end_if_old(worker)
        return Answered(job, found, self._running)

    def _lost(self, job: Job | None, lost: Lost) -> Failed | None:
        """Have a job done again whose worker was lost, or give it up. Raises: QuintainError."""
        if job is None:
            self._false_starts += 1
            if self._false_starts >= ATTEMPTS:
                raise QuintainError(f"workers do not start: {lost.reason}")
            return None
        if not lost.begun:
            self._waiting.appendleft(job)
            return None
        self._losses[id(job)] += 1
        if self._losses[id(job)] < ATTEMPTS:
            self._waiting.appendleft(job)
            return None
        why = f"the worker at work on it {lost.reason}, {ATTEMPTS} times"
        return Failed(why, f"{why}\n{lost.details}")

    def _begin(self, worker: W, job: Job) -> None:
        worker.begin(job)
        self._running += 1

    def _end_if_old(self, worker: W) -> None:
        for number, one in self._workers.items():
            if one is worker and self._pool.clock() - self._began[number] > self._pool.lifetime:
                self._end(worker)
                return

    def _end(self, worker: W) -> None:
        number = next(one for one, other in self._workers.items() if other is worker)
        self._workers.pop(number).end()

    def end_workers(self) -> None:
        """End all workers, whatever they do."""
        for worker in self._workers.values():
            worker.end()
