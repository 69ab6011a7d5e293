"""What is left to do in a run, handed out when what it needs is there."""

from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum, auto

from .plan import Place, Plan


class _State(Enum):
    WANTED, AT_WORK, THERE = auto(), auto(), auto()


class Queue:
    """Networks and cells that are missing. A network is asked for once, before its first cell.

    A cell waits for the networks that it takes, and for the kinds of task on its defended model
    that its own comes after. An item is the number of a defended model, whose network is to be
    made, or the place of a cell.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._networks: dict[int, _State] = {}
        self._waiting: dict[int, list[int]] = {}  # defended model -> tasks
        self._at_work: set[Place] = set()
        self._pending: Counter[tuple[int, str]] = Counter()  # defended model, kind of task

    def want(self, number: int) -> None:
        """Have a network made, unless it is or will be."""
        self._networks.setdefault(number, _State.WANTED)

    def add(self, places: Iterable[Place]) -> None:
        """Have cells computed."""
        for number, task in sorted(places):
            self.want(number)
            self._waiting.setdefault(number, []).append(task)
            self._pending[number, self._plan.tasks[task].kind] += 1

    def take(self, held: int | None = None) -> int | Place | None:
        """Hand out what can be done now; None where everything waits for what is at work.

        held: the network that whoever asks has in memory. Its cells come first, then networks that
        nobody is at work on.
        """
        for number in self._in_order(held):
            item = self._ready(number)
            if isinstance(item, tuple):
                self._waiting[number].remove(item[1])
                self._at_work.add(item)
            elif item is not None:
                self._networks[item] = _State.AT_WORK
            if item is not None:
                return item
        return None

    def made(self, number: int) -> None:
        """Note that a network is there."""
        self._networks[number] = _State.THERE

    def failed(self, number: int) -> list[Place]:
        """Note that a network cannot be had; the cells that will not be computed for it."""
        self._networks[number] = _State.THERE  # not asked for again
        waiting = ((at, task) for at, tasks in self._waiting.items() for task in tasks)
        lost = [place for place in waiting if number in self._plan.networks(place)]
        for place in lost:
            self._waiting[place[0]].remove(place[1])
            self.ended(place)
        return lost

    def ended(self, place: Place) -> None:
        """Note that a cell is done, or failed."""
        self._at_work.discard(place)
        self._pending[place[0], self._plan.tasks[place[1]].kind] -= 1

    def _in_order(self, held: int | None) -> Iterator[int]:
        """The networks with something to do, those first that are best taken now."""
        busy = {number for number, _ in self._at_work}
        busy |= {one for one, state in self._networks.items() if state is _State.AT_WORK}
        if held in self._networks:
            yield held
        numbers = sorted(self._networks)
        yield from (number for number in numbers if number not in busy)
        yield from (number for number in numbers if number in busy)

    def _ready(self, number: int) -> int | Place | None:
        """What can be done for a network: itself, a cell, or a network that a cell borrows."""
        if self._networks[number] is not _State.THERE:
            return number if self._networks[number] is _State.WANTED else None
        for task in self._waiting.get(number, []):
            if any(self._pending[number, kind] for kind in self._plan.tasks[task].after):
                continue
            source = self._plan.tasks[task].source
            state = _State.THERE if source is None else self._networks.get(source, _State.WANTED)
            if state is _State.THERE:
                return number, task
            if state is _State.WANTED:
                return source
        return None
