"""Which classes FAB goes for, and where its restarts begin."""

from dataclasses import replace

import torch
from builders import problem_at

from quintain.attacks.white_box.fab import FAB, FABT
from quintain.bench.api.threat import NORMS, make_ball, measure

LOGITS = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
Y = torch.tensor([0, 3])


class Scores:
    """A victim of four classes that says the same everywhere."""

    access = "white-box"
    n_classes = 4

    def scores(self, x, rows=None):
        return LOGITS


def problem(restart, norm="Linf"):
    x = torch.full((2, 1, 3, 3), 0.5)
    at = problem_at(x, Scores(), y=Y, norm=norm, restart=restart)
    return replace(at, ball=make_ball(norm, x, torch.tensor([0.1, 0.2])))


def test_each_restart_goes_for_the_next_class_and_never_for_one_that_does_not_exist():
    seen = [FABT(targets=9).start(problem(restart)).classes[:, 0].tolist() for restart in range(4)]
    assert seen == [[2, 2], [1, 1], [3, 0], [2, 2]]
    seen = [FABT(targets=2).start(problem(restart)).classes[:, 0].tolist() for restart in range(3)]
    assert seen == [[2, 2], [1, 1], [2, 2]]


def test_all_classes_but_the_label_are_looked_at():
    classes = FAB().start(problem(0)).classes
    assert classes.tolist() == [[2, 1, 3], [2, 1, 0]]


def test_it_begins_at_the_image_and_then_half_epsilon_away():
    for norm in NORMS:
        assert torch.equal(FAB().start(problem(0, norm)).iterate, problem(0).x)
        assert torch.equal(FABT().start(problem(2, norm)).iterate, problem(0).x)
        for start in (FAB().start(problem(1, norm)), FABT().start(problem(3, norm))):
            away = measure(start.iterate - problem(0).x, norm)
            assert torch.allclose(away, torch.tensor([0.05, 0.1]).double(), rtol=1e-5)
            assert torch.equal(start.x_adv, problem(0).x)
