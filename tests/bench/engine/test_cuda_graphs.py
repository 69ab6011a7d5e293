from dataclasses import dataclass, fields

import pytest
import torch

from quintain.attacks.gradients.finite_differences import FiniteDifferences
from quintain.attacks.parts.losses import Margin
from quintain.attacks.white_box.pgd import PGD
from quintain.bench.api.progress import Silent
from quintain.bench.api.threat import Epsilon
from quintain.bench.datasets.in_memory import TensorImages
from quintain.bench.engine.batch import ActiveBatch
from quintain.bench.engine.cascade import CascadeRunner
from quintain.bench.engine.config import AttackStage, CellConfig
from quintain.bench.engine.cuda_graphs import Captured
from quintain.bench.engine.loop import AttackInputs
from quintain.bench.victim.model import Network, frozen


def ran(digits, check_every, attacks=(PGD(steps=7),), batch=16, **named):
    count = 40
    grid = tuple(Epsilon.parse(one) for one in (0.05, 0.1, 0.2, 0.3))
    with frozen(digits.module) as module:
        labels = module(digits.images[:count]).argmax(1)
        field = AttackInputs(
            Network(module, torch.device("cpu"), 32),
            TensorImages(digits.images[:count]),
            labels,
            torch.arange(count),
            CellConfig("Linf", grid, **named),
            batch,
            Silent(),
            check_every=check_every,
        )
        return CascadeRunner(field).run([AttackStage(one, restarts=2) for one in attacks])


@pytest.mark.parametrize("check_every", [2, 3, 10])
@pytest.mark.parametrize("named", [{}, {"search": "exhaustive"}, {"early_leaving": False},
                                   {"query_budget": 9}])  # fmt: skip
def test_when_the_host_looks_changes_nothing(digits, check_every, named):
    expected = ran(digits, 1, **named)
    assert 0.1 < expected.broken.mean() < 0.9
    outcomes = ran(digits, check_every, **named)
    for name in vars(expected):
        assert getattr(outcomes, name).tolist() == getattr(expected, name).tolist(), name


def test_attacks_that_ask_about_rows_apart_may_be_looked_at_seldom(digits):
    attacks = (PGD(steps=3, loss=Margin(), gradient=FiniteDifferences(coordinates=8)),)
    expected, outcomes = (ran(digits, one, attacks) for one in (1, 4))
    assert outcomes.queries.tolist() == expected.queries.tolist()
    assert outcomes.distance.tolist() == expected.distance.tolist()


@dataclass(frozen=True)
class Whole:
    """A whole attack that counts how often it is run."""

    access = "white-box"
    runs: list

    def run(self, problem):
        self.runs.append(len(problem.x))
        steepest = problem.victim.gradient(problem.x, lambda z: -z.logsumexp(1)).gradient
        return problem.ball.project(problem.x + problem.ball.radius * steepest.sign())


def test_a_whole_attack_is_run_once_an_attempt_however_seldom_the_host_looks(digits):
    runs = []
    for check_every in (1, 4):
        attack = Whole([])
        outcomes = ran(digits, check_every, (attack,))
        runs.append((attack.runs, outcomes.queries.tolist(), outcomes.distance.tolist()))
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
    outcomes = ran(digits, 3)
    assert outcomes.broken.tolist() == expected.broken.tolist()
    assert outcomes.forward.tolist() == expected.forward.tolist()
    assert tape.captured == 1
    assert (tape.replayed > 10) != fails


def test_what_the_engine_replaces_is_copied_into_the_captured_memory():
    @dataclass
    class State:
        x_adv: torch.Tensor

    given = {one.name: torch.zeros(2) for one in fields(ActiveBatch)}
    batch = ActiveBatch(**given | {"state": State(torch.zeros(2))})

    def advance(batch):
        batch.state = State(batch.state.x_adv + 1)
        batch.step = batch.step + 1

    tape = Tape()
    advanced = Captured(advance, tape)
    advanced(batch, 2)
    memory = batch.state.x_adv
    assert memory.tolist() == batch.step.tolist() == [2, 2]
    batch.state = State(torch.tensor([10.0, 2.0]))
    advanced(batch, 2)
    assert batch.state.x_adv is memory
    assert memory.tolist() == [12, 4]
    assert tape.captured == 1
