"""Attacks of other shapes than PGD: surrogate gradients, graphs, cascades, distances."""

from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from quintain.attacks.white_box.fgsm import fgsm
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.attack import Cascade
from quintain.bench.api.errors import AccessDenied
from quintain.bench.api.threat import make_ball
from quintain.bench.victim.counters import UNLIMITED, AttackCounters
from quintain.bench.victim.decision import decision_of
from quintain.bench.victim.model import Network
from quintain.bench.victim.oracle import AttackedModel, Oracle

RADII = (0.1, 0.25, 0.4)


class Threshold(nn.Module):
    """Class 1 where the first pixel is at least 0.7."""

    def forward(self, x):
        pixel = x[:, 0, 0, :1]
        return torch.cat([0.7 - pixel, pixel - 0.7], dim=1)


def asked(access, budget=UNLIMITED, count=2, module=None):
    x = torch.full((count, 1, 1, 2), 0.5)
    ball = make_ball("Linf", x, torch.full((count,), 0.4, dtype=torch.float64))
    grid = torch.tensor(RADII, dtype=torch.float64).repeat(count, 1)
    zeros = torch.zeros(count, dtype=torch.int64)
    counters = AttackCounters.open(ball, zeros, zeros + budget, grid)
    network = Network(module or Threshold(), torch.device("cpu"), 64)
    model = AttackedModel(decision_of(network, targeted=False), access)
    return Oracle(model, counters), counters


def pixels(*values):
    x = torch.full((len(values), 1, 1, 2), 0.5)
    x[:, 0, 0, 0] = torch.tensor(values)
    return x


def test_the_query_that_first_broke_each_radius_is_noted():
    victim, counters = asked("score")
    victim.labels(pixels(0.6, 0.5))
    rows = torch.tensor([1, 0, 0, 1, 0, 1])
    victim.scores(pixels(0.5, 0.88, 0.6, 0.8, 0.69, 0.78), rows)
    assert counters.counts["solved"].tolist() == [[0, 0, 2], [0, 0, 3]]
    victim.labels(pixels(0.72, 0.72))
    assert counters.counts["queries"].tolist() == [5, 5]
    assert counters.counts["solved"].tolist() == [[0, 5, 2], [0, 5, 3]]


def test_queries_beyond_the_budget_solve_nothing():
    victim, counters = asked("score", budget=2, count=1)
    rows = torch.zeros(4, dtype=torch.int64)
    victim.labels(pixels(0.5, 0.6, 0.9, 0.8), rows)
    assert counters.counts["solved"].tolist() == [[0, 0, 0]]
    assert counters.counts["queries"].tolist() == [2]


def test_differentiable_logits_are_counted_when_asked_for_and_when_pulled_back():
    victim, counters = asked("white-box")
    x = pixels(0.5, 0.8).requires_grad_()
    logits = victim.differentiable(x)
    assert (counters.counts["forward"].tolist(), counters.counts["backward"].tolist()) == (
        [1, 1],
        [0, 0],
    )
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), x)
    assert gradient[:, 0, 0].tolist() == [[1, 0], [1, 0]]
    assert counters.counts["backward"].tolist() == [1, 1]
    assert counters.distance[1] == pytest.approx(0.3)


def test_a_score_attack_gets_no_graph():
    victim, _ = asked("score")
    with pytest.raises(AccessDenied, match="score access for gradients"):
        victim.differentiable(pixels(0.5, 0.5))


@dataclass(frozen=True)
class Shifted:
    """Adds its setting to the logit of class 1."""

    faithful: bool = False

    @contextmanager
    def applied(self, module, setting):
        hook = module.register_forward_hook(
            lambda _, inputs, output: output + setting[:, None] * torch.tensor([0.0, 1.0])
        )
        yield
        hook.remove()


@pytest.mark.parametrize("faithful", [True, False])
def test_only_a_faithful_surrogate_gradient_tells_what_is_adversarial(faithful):
    victim, counters = asked("white-box")
    setting = torch.tensor([0.0, 1.0])
    answer = victim.gradient(pixels(0.6, 0.6), lambda z: z[:, 1], Shifted(faithful), setting)
    assert answer.logits[:, 1].tolist() == pytest.approx([-0.1, 0.9])
    assert counters.distance.isfinite().tolist() == [False, faithful]
    assert counters.counts["backward"].tolist() == [1, 1]


def test_a_surrogate_gradient_keeps_each_setting_with_its_row_whatever_the_parts():
    network = Network(Threshold(), torch.device("cpu"), 16)
    x = pixels(*[0.5] * 50)
    setting = torch.arange(50.0)
    answer = network.gradient(x, lambda z: z[:, 1].square(), Shifted(), setting)
    assert answer.logits[:, 1].tolist() == pytest.approx((setting - 0.2).tolist(), abs=1e-5)
    assert answer.gradient[:, 0, 0, 0].tolist() == pytest.approx((2 * setting - 0.4).tolist())


@dataclass
class Iterate:
    x_adv: torch.Tensor


@dataclass(frozen=True)
class Adaptation:
    """Asks about points ever nearer to the clean image: at 0.35, 0.3, ... above it."""

    minimum_norm = True
    access: str = "decision"
    steps: int = 7

    def start(self, problem):
        return Iterate(problem.x)

    def step(self, problem, state):
        up = 0.35 - 0.05 * problem.step.reshape(-1, 1, 1, 1) - 0.02 * problem.restart.sum()
        x_adv = problem.x + up
        problem.victim.labels(x_adv)
        return Iterate(x_adv)


@pytest.mark.parametrize("search", ["bracket", "exhaustive"])
def test_a_minimum_norm_attack_serves_the_whole_grid_in_one_run(search):
    images, labels = torch.full((3, 1, 1, 2), 0.42), torch.zeros(3, dtype=torch.int64)
    epsilons = [0.2, 0.29, 0.31, 0.5]
    result = evaluate(Threshold(), images, labels, Adaptation(), epsilons=epsilons, search=search)
    assert result.curve["robust_accuracy"].tolist() == [1, 1, 0, 0]
    record = result.records.iloc[0]
    assert record["distance"] == pytest.approx(0.3)
    assert record["queries"] == 7 + 1  # and the last iterate
    assert list(record["solved"]) == [0, 0, 2, 1]
    assert all(record["attacked"])


def test_a_minimum_norm_attack_ends_once_the_smallest_epsilon_is_broken():
    images, labels = torch.full((3, 1, 1, 2), 0.42), torch.zeros(3, dtype=torch.int64)
    result = evaluate(Threshold(), images, labels, Adaptation(), epsilons=[0.31, 0.5])
    assert result.records["queries"].tolist() == [2, 2, 2]


def test_a_cascade_gives_each_attack_what_is_left(digits):
    both = Cascade((fgsm(), PGD(steps=10)))
    x, y = digits.images[:60], digits.labels[:60]
    settings = {"epsilons": [0.05, 0.1, 0.15], "precision": "float32"}
    result = evaluate(digits.module, x, y, both, **settings)
    listed = evaluate(digits.module, x, y, [fgsm(), PGD(steps=10)], **settings)
    assert result.records.equals(listed.records)
    assert result.stages == ("PGD", "PGD")
    first = evaluate(digits.module, x, y, fgsm(), **settings)
    for mine, alone in zip(
        result.records.to_dict("records"), first.records.to_dict("records"), strict=True
    ):
        for stage, broken, before in zip(
            mine["stage"], mine["broken"], alone["broken"], strict=True
        ):
            assert stage == (0 if before else 1 if broken else -1)


def test_attempts_are_restarts_of_their_own(digits):
    @dataclass(frozen=True)
    class Twice(PGD):
        attempts_per_restart = 2

    x, y = digits.images[:20], digits.labels[:20]
    settings = {"epsilons": [0.01], "search": "exhaustive", "precision": "float32"}
    once = evaluate(digits.module, x, y, PGD(steps=5), **settings).records
    twice = evaluate(digits.module, x, y, Twice(steps=5), **settings).records
    robust = [not any(one) for one in twice["broken"]]
    assert any(robust)
    assert (twice["backward"][robust] == 2 * once["backward"][robust]).all()
