import math

import pytest
import torch

from quintain.defenses.training.loop.schedules import (
    Constant,
    OneCycle,
    Plateau,
    Step,
    make_schedule,
)


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
    ("name", "made"),
    [
        ("plateau", Plateau(7)),
        ("one-cycle", OneCycle(0.25)),
        ("cosine", OneCycle(0.125)),
        ("step", Step((0.2, 0.9), 4.0)),
        ("constant", Constant()),
    ],
)
def test_schedules_by_name_take_what_they_need(name, made):
    settings = {"patience": 7, "rate_warmup": 0.125, "milestones": (0.2, 0.9), "divisor": 4.0}
    assert make_schedule(name, **settings) == made


def test_cosine_without_warm_up_is_torchs():
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for step in range(11):
        assert OneCycle(up=0.0).factor(step / 10) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_step_is_torchs_with_the_milestones_as_shares():
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 15], gamma=0.1)
    ours = Step((0.5, 0.75), 10.0)
    for epoch in range(20):
        for part in (0.01, 0.99):  # all through the epoch
            assert ours.factor((epoch + part) / 20) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_only_the_plateau_listens():
    for schedule in (OneCycle(), Constant(), Step((0.3,), 10.0)):
        before = schedule.factor(0.4)
        for _ in range(50):
            schedule.validated(1.0)
        assert schedule.factor(0.4) == before
