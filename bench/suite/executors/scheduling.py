"""What executors have in common: how jobs are handed to workers, and those done in this process."""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ...api.errors import QuintainError
from ..jobs import Answer, Failed, Job, run_job

NextJob = Callable[[int | None], Job | None]
Answers = Generator[tuple[Job, Answer]]

ATTEMPTS = 3  # at a job, where the worker that was at work on it was lost


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
            yield job, run_job(job)


@dataclass(frozen=True)
class Lost:
    """A worker is no more, and how that came, as `was ended by signal 9`."""

    reason: str


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


def schedule(
    next_job: NextJob,
    count: int,
    start: Callable[[int], W],
    ready: Callable[[list[W]], list[W]],
    more: Callable[[list[W]], bool] = lambda workers: True,
) -> Answers:
    """Have up to `count` workers do jobs until there are none, and end them.

    A job whose worker is lost is done again by another one, up to three times.

    start: makes a worker, given the smallest number from 0 that no other has, when there is a job
    for it. ready: waits until some of those at work or starting have an answer, have started, or
    are lost, and says which. more: whether there is room for another one beside those that there
    are.

    Raises: QuintainError where workers are lost before they can begin.
    """
    workers: dict[int, W] = {}
    waiting: deque[Job] = deque()  # jobs that are handed out, and that nobody is at work on
    losses: Counter[int] = Counter()  # by the identity of the job
    false_starts = 0
    try:
        while True:
            for worker in workers.values():
                if worker.job is None and not worker.starting:
                    job = waiting.popleft() if waiting else next_job(worker.held)
                    if job is None:
                        break
                    worker.begin(job)
            while len(workers) < count:
                starting = sum(worker.starting for worker in workers.values())
                if starting > len(waiting):
                    break
                if starting == len(waiting):
                    if (job := next_job(None)) is None:
                        break
                    waiting.append(job)
                number = next(one for one in itertools.count() if one not in workers)
                worker = workers[number] = start(number)
                if not worker.starting:
                    worker.begin(waiting.popleft())
                if len(workers) < count and not more([*workers.values()]):
                    count = len(workers)
            there = workers.values()
            if not waiting and all(worker.job is None for worker in there):
                return
            busy = [worker for worker in there if worker.starting or worker.job is not None]
            for worker in ready(busy):
                job, found = worker.job, worker.answer()
                if isinstance(found, Lost):
                    number = next(one for one, other in workers.items() if other is worker)
                    workers.pop(number).end()
                    if job is None:
                        false_starts += 1
                        if false_starts >= ATTEMPTS:
                            raise QuintainError(f"workers do not start: {found.reason}")
                        continue
                    losses[id(job)] += 1
                    if losses[id(job)] < ATTEMPTS:
                        waiting.appendleft(job)
                        continue
                    found = Failed(f"the worker at work on it {found.reason}, {ATTEMPTS} times")
                if job is not None and found is not None:
                    false_starts = 0
                    losses.pop(id(job), None)
                    yield job, found
    finally:
        for worker in workers.values():
            worker.end()
