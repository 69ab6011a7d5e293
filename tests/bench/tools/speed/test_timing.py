"""Turns and ratios, on a clock that only the runs move."""

from quintain.bench.tools.speed.timing import Spread, take_turns


class Clock:
    """Stands still unless a run takes time."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def run(self, *durations):
        """A run that takes so long the first time, the second time, ..."""
        left = list(durations)

        def work():
            self.now += left.pop(0)

        return work


def test_each_run_is_timed_in_every_round():
    clock = Clock()
    seconds = take_turns({"a": clock.run(1, 2, 4), "b": clock.run(3, 3, 6)}, 3, clock)
    assert seconds == {"a": [1, 2, 4], "b": [3, 3, 6]}


def test_another_one_goes_first_in_every_round():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    take_turns(runs, 4, lambda: 0.0)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"


def test_ratios_are_taken_within_rounds():
    slowed = [1.0, 10.0, 2.0]  # the machine was busy in the second round
    assert Spread.of_ratios([2.0, 20.0, 5.0], slowed) == Spread(2.0, 2.0, 2.5)


def test_a_spread_of_an_even_number_of_figures():
    assert Spread.of([4.0, 1.0, 3.0, 2.0]) == Spread(2.5, 1.0, 4.0)
