"""What is left to do in a run, handed out when what it needs is there."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, auto

from .plan import Place, Plan, Shard

Item = int | Place | Shard


class _State(Enum):
    WANTED, AT_WORK, THERE = auto(), auto(), auto()


def _whole(place: Place) -> Sequence[Shard]:
    """No shards: the cell is computed as one."""
    return ()


class Queue:
    """Networks and cells that are missing. A network is asked for once, before its first cell.

    A cell waits for the networks that it takes, and for the kinds of task on its defended model
    that its own comes after; one that is divided also for its shards, each of which is handed out
    by itself. An item is the number of a defended model, whose network is to be made, a shard, or
    the place of a cell.

    split: the shards of a cell that are to be computed, asked for when it could begin.
    """

    def __init__(self, plan: Plan, split: Callable[[Place], Sequence[Shard]] = _whole) -> None:
        self._plan = plan
        self._split = split
        self._shards: dict[Place, list[Shard]] = {}  # those to hand out, the last one first
        self._unfinished: Counter[Place] = Counter()  # shards, those at work among them
        self._networks: dict[int, _State] = {}
        self._waiting: dict[int, list[int]] = {}  # defended model -> tasks
        self._at_work: set[Place | Shard] = set()
        self._busy: Counter[int] = Counter()  # networks -> what is at work on them
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

    def take(self, held: int | None = None) -> Item | None:
        """Hand out what can be done now; None where everything waits for what is at work.

        held: the network that whoever asks has in memory. Its cells come first, then networks that
        nobody is at work on.
        """
        for number in self._in_order(held):
            item = self._ready(number)
            if item is None:
                continue
            if isinstance(item, int):
                self._networks[item] = _State.AT_WORK
                self._busy[item] += 1
                return item
            if isinstance(item, Shard):
                self._shards[item.place].pop()
            else:
                self._waiting[number].remove(item[1])
            self._at_work.add(item)
            self._busy[number] += 1
            return item
        return None

    def made(self, number: int) -> None:
        """Note that a network is there."""
        self._came_to_an_end(number)

    def failed(self, number: int) -> list[Place]:
        """Note that a network cannot be had; the cells that will not be computed for it."""
        self._came_to_an_end(number)  # not asked for again
        waiting = ((at, task) for at, tasks in self._waiting.items() for task in tasks)
        lost = [place for place in waiting if number in self._plan.networks(place)]
        for place in lost:
            self._waiting[place[0]].remove(place[1])
            self.ended(place)
        return lost

    def _came_to_an_end(self, number: int) -> None:
        if self._networks[number] is _State.AT_WORK:
            self._busy[number] -= 1
        self._networks[number] = _State.THERE

    def ended(self, place: Place) -> None:
        """Note that a cell is done, or failed."""
        self._leave(place, place[0])
        self._pending[place[0], self._plan.tasks[place[1]].kind] -= 1

    def shard_ended(self, shard: Shard) -> None:
        """Note that a shard is done, or failed."""
        self._leave(shard, shard.place[0])
        self._unfinished[shard.place] -= 1

    def give_up(self, place: Place) -> None:
        """Note that a cell, some shards of which are not done, will not be computed."""
        self._shards.pop(place, None)
        self._waiting[place[0]].remove(place[1])
        self.ended(place)

    def _leave(self, item: Place | Shard, number: int) -> None:
        if item in self._at_work:
            self._at_work.remove(item)
            self._busy[number] -= 1

    def _in_order(self, held: int | None) -> Iterator[int]:
        """The networks with something to do, those first that are best taken now."""
        if held in self._networks:
            yield held
        numbers = sorted(self._networks)
        yield from (number for number in numbers if not self._busy[number])
        yield from (number for number in numbers if self._busy[number])

    def _ready(self, number: int) -> Item | None:
        """What can be done for a network: itself, a cell or a shard, or one that a cell borrows."""
        if self._networks[number] is not _State.THERE:
            return number if self._networks[number] is _State.WANTED else None
        for task in self._waiting.get(number, []):
            if any(self._pending[number, kind] for kind in self._plan.tasks[task].after):
                continue
            source = self._plan.tasks[task].source
            state = _State.THERE if source is None else self._networks.get(source, _State.WANTED)
            if state is _State.WANTED:
                return source
            if state is _State.THERE and (item := self._of_cell((number, task))) is not None:
                return item
        return None

    def _of_cell(self, place: Place) -> Place | Shard | None:
        """A cell that could begin, or its next shard; None where its last ones are at work."""
        if place not in self._shards:
            self._shards[place] = [*reversed(self._split(place))]
            self._unfinished[place] = len(self._shards[place])
        if self._shards[place]:
            return self._shards[place][-1]
        return None if self._unfinished[place] else place
