"""Jobs handed to many workers in simulated time, some of which are lost."""

import heapq
import math
import random
import time
from dataclasses import dataclass

import pytest

from quintain.bench.api.errors import QuintainError
from quintain.bench.suite.executors.scheduling import Lost, Pool, schedule
from quintain.bench.suite.jobs import Failed
from quintain.bench.suite.plan import Shard
from quintain.bench.suite.queue import Queue

from .test_queue import Plan, Task


@dataclass(frozen=True)
class Job:
    item: object

    @property
    def number(self):
        if isinstance(self.item, int):
            return self.item
        return self.item.place[0] if isinstance(self.item, Shard) else self.item[0]


class Cluster:
    """Workers that sleep in simulated time. loss: the share of jobs at which one is lost."""

    def __init__(self, seed, loss=0.0, hang=()):
        self.chance, self.loss, self.hang = random.Random(seed), loss, set(hang)
        self.now, self.made, self.ended, self.order = 0.0, 0, 0, 0
        self.events = []

    def start(self, number):
        self.made += 1
        return Sleeper(self, starts=self.made not in self.hang)

    def later(self, worker, mean):
        self.order += 1
        at = self.now + self.chance.uniform(0.5, 1.5) * mean
        heapq.heappush(self.events, (at, self.order, worker))

    def ready(self, workers):
        self.now, _, worker = heapq.heappop(self.events)
        return [worker]


class Sleeper:
    def __init__(self, cluster, *, starts):
        self.cluster, self.job, self.held, self.starting = cluster, None, None, True
        if starts:  # else there is no place for it
            cluster.later(self, 5.0)

    def begin(self, job):
        assert self.job is None
        assert not self.starting
        self.job, self.held = job, job.number
        self.cluster.later(self, 1.0)

    def answer(self):
        job, self.job = self.job, None
        if self.cluster.chance.random() < self.cluster.loss:
            return Lost("was lost")
        if self.starting:
            self.starting = False
            return None
        return job.item

    def end(self):
        self.cluster.ended += 1


def run(networks, tasks, workers, cluster, shards=0, lifetime=math.inf):
    """The items done and failed, and the processor seconds that handing them out took."""
    plan = Plan(networks, [Task() for _ in range(tasks)])
    queue = Queue(plan, lambda place: [Shard(place, row, row + 1) for row in range(shards)])
    queue.add(plan.places)
    done, failed, began = [], [], time.process_time()

    def next_job(held):
        item = queue.take(held)
        return None if item is None else Job(item)

    pool = Pool(workers, cluster.start, cluster.ready, lifetime=lifetime, clock=lambda: cluster.now)
    for job, answer, running in schedule(next_job, pool):
        assert 0 <= running < workers
        item = job.item
        (failed if isinstance(answer, Failed) else done).append(item)
        if isinstance(item, int):
            queue.made(item)
        elif isinstance(item, Shard):
            queue.shard_ended(item)
        else:
            queue.ended(item)
    return done, failed, time.process_time() - began


@pytest.mark.parametrize("workers", [1, 2, 7, 50])
def test_everything_is_done_once_though_workers_are_lost(workers):
    cluster = Cluster(workers, loss=0.02)
    done, failed, _ = run(20, 10, workers, cluster, shards=3)
    assert not failed
    cells = {(number, task) for number in range(20) for task in range(10)}
    shards = {Shard(place, row, row + 1) for place in cells for row in range(3)}
    assert len(done) == len(set(done))
    assert set(done) == {*range(20), *cells, *shards}
    assert cluster.made == cluster.ended  # none is left behind


def test_a_job_that_takes_every_worker_along_fails_and_the_rest_go_on():
    cluster = Cluster(0)
    fatal = (1, 1)
    answer = Sleeper.answer

    class Fatal(Sleeper):
        def answer(self):
            job = self.job
            return Lost("was lost") if job and job.item == fatal else answer(self)

    cluster.start = lambda number: Fatal(cluster, starts=True)
    done, failed, _ = run(3, 3, 2, cluster)
    assert failed == [fatal]
    assert len(done) == 3 + 9 - 1


def test_a_job_is_not_given_up_for_workers_that_end_before_they_begin_it():
    """As workers do whose time is up: each ends after four jobs, and may be sent a fifth."""
    cluster, unbegun = Cluster(0), []
    answer = Sleeper.answer

    class Ending(Sleeper):
        jobs = 0

        def answer(self):
            self.jobs += self.job is not None
            if self.jobs == 5:
                unbegun.append(self.job.item)
                return Lost("ended when its time was up", begun=False)
            return answer(self)

    cluster.start = lambda number: Ending(cluster, starts=True)
    done, failed, _ = run(3, 40, 2, cluster)
    assert (len(done), len(set(done)), failed) == (3 + 120, 3 + 120, [])
    assert len(unbegun) > 20


def test_a_worker_that_has_been_there_for_long_is_replaced():
    cluster = Cluster(0)
    done, failed, _ = run(5, 20, 3, cluster, lifetime=15.0)
    assert (len(done), failed) == (5 + 100, [])
    assert cluster.made == cluster.ended > 3 * 2
    assert cluster.now < 1.8 * 105 / 3


def test_workers_without_a_place_keep_nobody_waiting():
    cluster = Cluster(0, hang=(1, 3, 4))
    done, failed, _ = run(5, 5, 4, cluster)
    assert (len(done), failed) == (5 + 25, [])
    assert cluster.made == cluster.ended == 4


def test_workers_that_never_start_are_said():
    with pytest.raises(QuintainError, match="workers do not start: was lost"):
        run(3, 3, 2, Cluster(0, loss=1.0))


def test_workers_are_kept_busy():
    """Time is the work over the workers, and what the last ones take: nobody idles meanwhile."""
    cluster = Cluster(1)
    run(40, 25, 20, cluster)
    assert cluster.now < 1.15 * (40 * 26) / 20 + 5.0 + 3.0


@pytest.mark.slow
def test_a_hundred_thousand_cells_on_a_thousand_workers():
    cluster = Cluster(2, loss=0.001)
    done, failed, seconds = run(1000, 100, 1000, cluster)
    assert (len(done), failed) == (1000 + 100_000, [])
    print(f"{1e6 * seconds / len(done):.0f} us a job, {cluster.now:.0f} s simulated")
    assert seconds / len(done) < 2e-3
