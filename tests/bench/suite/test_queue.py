"""What is left to do is handed out once, when what it needs is there."""

import random
from dataclasses import dataclass, field

import pytest

from quintain.bench.suite.queue import Queue


@dataclass(frozen=True)
class Task:
    kind: str = "attack"
    after: tuple[str, ...] = ("certificate",)
    source: int | None = None


@dataclass(frozen=True)
class Plan:
    """Every task meets every defended model, but for transfer and the source itself."""

    count: int
    tasks: list[Task] = field(default_factory=list)

    @property
    def places(self):
        return [
            (number, at)
            for number in range(self.count)
            for at, task in enumerate(self.tasks)
            if task.source != number
        ]

    def networks(self, place):
        source = self.tasks[place[1]].source
        return (place[0],) if source is None else (place[0], source)


def filled(plan, places=None):
    queue = Queue(plan)
    queue.add(plan.places if places is None else places)
    return queue


def end(queue, item):
    queue.made(item) if isinstance(item, int) else queue.ended(item)


def alone(queue):
    """What one worker does, in its order."""
    done, held = [], None
    while (item := queue.take(held)) is not None:
        held = item if isinstance(item, int) else item[0]
        done.append(item)
        end(queue, item)
    return done


def test_one_worker_does_a_network_after_the_other():
    done = alone(filled(Plan(2, [Task(), Task()])))
    assert done == [0, (0, 0), (0, 1), 1, (1, 0), (1, 1)]


def test_certificates_come_before_the_attacks_that_are_held_against_them():
    plan = Plan(1, [Task(), Task("certificate", ()), Task("diagnosis", ("attack",))])
    assert alone(filled(plan)) == [0, (0, 1), (0, 0), (0, 2)]
    queue = filled(plan)
    assert [queue.take() for _ in range(3)] == [0, None, None]
    queue.made(0)
    assert [queue.take() for _ in range(2)] == [(0, 1), None]  # all wait for the certificates
    queue.ended((0, 1))
    assert [queue.take() for _ in range(2)] == [(0, 0), None]


def test_a_borrowed_network_is_made_when_a_cell_needs_it_and_once():
    plan = Plan(3, [Task(), Task(source=2)])
    assert alone(filled(plan, [(0, 0), (0, 1), (1, 1)])) == [0, (0, 0), 2, (0, 1), 1, (1, 1)]


def test_workers_spread_over_networks_and_stay_with_them():
    queue = filled(Plan(2, [Task(), Task(), Task()]))
    assert [queue.take(), queue.take()] == [0, 1]
    queue.made(0)
    queue.made(1)
    assert [queue.take(1), queue.take(0)] == [(1, 0), (0, 0)]
    assert [queue.take(1), queue.take(1), queue.take(1)] == [(1, 1), (1, 2), (0, 1)]


def test_a_network_that_cannot_be_had_takes_its_cells_and_those_that_borrow_it_along():
    plan = Plan(2, [Task(), Task(source=0)])
    queue = filled(plan)
    assert queue.take() == 0
    assert sorted(queue.failed(0)) == [(0, 0), (1, 1)]
    assert alone(queue) == [1, (1, 0)]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_everything_is_done_once_whatever_ends_first(workers):
    kinds = [Task(), Task("certificate", ()), Task(source=1), Task(source=3), Task()]
    plan = Plan(4, kinds)
    chance = random.Random(workers)
    for _ in range(50):
        queue, busy, done = filled(plan), [], []
        while True:
            while len(busy) < workers and (item := queue.take(chance.randrange(5))) is not None:
                if not isinstance(item, int):
                    assert set(plan.networks(item)) <= set(done)
                    first = (item[0], 1)
                    assert item == first or first in done
                busy.append(item)
            if not busy:
                break
            item = busy.pop(chance.randrange(len(busy)))
            done.append(item)
            end(queue, item)
        assert sorted(map(str, done)) == sorted(map(str, [0, 1, 2, 3, *plan.places]))
