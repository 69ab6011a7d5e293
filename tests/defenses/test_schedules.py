import math

import pytest

from quintain.defenses.schedules import Constant, OneCycle, Plateau, make_schedule


def test_plateau_divides_by_ten_after_as_many_validations_as_its_patience():
    schedule = Plateau(patience=2)
    factors = []
    for loss in [1.0, 0.8, 0.8, 0.9, 0.7, 0.75, 0.74, 0.73, 0.72]:
        schedule.validated(loss)
        factors.append(schedule.factor(0.5))
    # the best are 0.8 (waits 2: divide), then 0.7 (waits 2: divide; 2 more: divide)
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001])


def test_an_improvement_starts_the_wait_again():
    schedule = Plateau(patience=2)
    for loss in [1.0, 1.1, 0.9, 1.0, 0.8, 0.9, 0.7]:
        schedule.validated(loss)
    assert schedule.factor(1.0) == 1.0


def test_one_cycle_rises_in_a_line_and_falls_along_a_cosine():
    schedule = OneCycle(up=0.25)
    assert [schedule.factor(p) for p in (0.0, 0.05, 0.125, 0.25)] == pytest.approx([0, 0.2, 0.5, 1])
    assert schedule.factor(0.25 + 0.75 / 2) == pytest.approx(0.5)
    assert schedule.factor(0.25 + 0.75 / 4) == pytest.approx(0.5 + 0.25 * math.sqrt(2))
    assert schedule.factor(1.0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "kind"), [("plateau", Plateau), ("one-cycle", OneCycle), ("constant", Constant)]
)
def test_schedules_by_name(name, kind):
    assert isinstance(make_schedule(name, 7), kind)


def test_patience_reaches_the_plateau():
    assert make_schedule("plateau", 7) == Plateau(patience=7)


def test_only_the_plateau_listens():
    for schedule in (OneCycle(), Constant()):
        before = schedule.factor(0.4)
        for _ in range(50):
            schedule.validated(1.0)
        assert schedule.factor(0.4) == before
