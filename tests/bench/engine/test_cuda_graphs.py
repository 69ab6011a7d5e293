from dataclasses import dataclass, fields

import pytest
import torch

from quintain.attacks.gradients.finite_differences import FiniteDifferences
from quintain.attacks.parts.losses import Margin
from quintain.attacks.white_box.pgd import PGD
from quintain.bench.api.progress import Silent
from quintain.bench.api.threat import Epsilon
from quintain.bench.datasets.in_memory import TensorImages
from quintain.bench.engine.batch import Slots
from quintain.bench.engine.cascade import Engine
from quintain.bench.engine.config import Member, Settings
from quintain.bench.engine.cuda_graphs import Captured
from quintain.bench.engine.loop import Field
from quintain.bench.victim.model import Network, frozen


def ran(digits, look_every, attacks=(PGD(steps=7),), slots=16, **named):
    count = 40
    grid = tuple(Epsilon.parse(one) for one in (0.05, 0.1, 0.2, 0.3))
    with frozen(digits.module) as module:
        labels = module(digits.images[:count]).argmax(1)
        field = Field(
            Network(module, torch.device("cpu"), 32),
            TensorImages(digits.images[:count]),
            labels,
            torch.arange(count),
            Settings("Linf", grid, **named),
            slots,
            Silent(),
            look_every=look_every,
        )
        return Engine(field).run([Member(one, restarts=2) for one in attacks])


@pytest.mark.parametrize("look_every", [2, 3, 10])
@pytest.mark.parametrize("named", [{}, {"search": "exhaustive"}, {"early_leaving": False},
                                   {"query_budget": 9}])  # fmt: skip
def test_when_the_host_looks_changes_nothing(digits, look_every, named):
    expected = ran(digits, 1, **named)
    assert 0.1 < expected.broken.mean() < 0.9
    book = ran(digits, look_every, **named)
    for name in vars(expected):
        assert getattr(book, name).tolist() == getattr(expected, name).tolist(), name


def test_attacks_that_ask_about_rows_apart_may_be_looked_at_seldom(digits):
    attacks = (PGD(steps=3, loss=Margin(), gradient=FiniteDifferences(coordinates=8)),)
    expected, book = (ran(digits, one, attacks) for one in (1, 4))
    assert book.queries.tolist() == expected.queries.tolist()
    assert book.distance.tolist() == expected.distance.tolist()


@dataclass(frozen=True)
class Whole:
    """A whole attack that counts how often it is run."""

    access = "white-box"
    runs: list

    def run(self, problem):
        self.runs.append(len(problem.x))
        steepest = problem.victim.gradient(problem.x, lambda z: -z.logsumexp(1)).gradient
        return problem.ball.project(problem.x + problem.ball.radius * steepest.sign())


def test_a_whole_attack_is_run_once_a_try_however_seldom_the_host_looks(digits):
    runs = []
    for look_every in (1, 4):
        attack = Whole([])
        book = ran(digits, look_every, (attack,))
        runs.append((attack.runs, book.queries.tolist(), book.distance.tolist()))
    assert runs[0] == runs[1]


class Tape:
    """Captures steps as a GPU does: without running them, on the memory that they saw."""

    def __init__(self, *, fails=False):
        self.fails = fails
        self.captured = self.replayed = 0

    def __call__(self, step):
        self.captured += 1
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")

        def replay():
            self.replayed += 1
            step()

        return replay


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_is_captured_once_and_replayed(digits, monkeypatch, fails):
    expected = ran(digits, 1)
    tape = Tape(fails=fails)
    monkeypatch.setattr("quintain.bench.engine.loop.repeat", tape)
    book = ran(digits, 3)
    assert book.broken.tolist() == expected.broken.tolist()
    assert book.forward.tolist() == expected.forward.tolist()
    assert tape.captured == 1
    assert (tape.replayed > 10) != fails


def test_what_the_engine_replaces_is_copied_into_the_captured_memory():
    @dataclass
    class State:
        x_adv: torch.Tensor

    given = {one.name: torch.zeros(2) for one in fields(Slots)}
    slots = Slots(**given | {"state": State(torch.zeros(2))})

    def advance(slots):
        slots.state = State(slots.state.x_adv + 1)
        slots.step = slots.step + 1

    tape = Tape()
    advanced = Captured(advance, tape)
    advanced(slots, 2)
    memory = slots.state.x_adv
    assert memory.tolist() == slots.step.tolist() == [2, 2]
    slots.state = State(torch.tensor([10.0, 2.0]))
    advanced(slots, 2)
    assert slots.state.x_adv is memory
    assert memory.tolist() == [12, 4]
    assert tape.captured == 1
