"""Images, labels, epsilons, weights may only be read: a cell whose attack wrote fails."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from builders import Iterate
from torch import nn

from quintain.bench import evaluate
from quintain.bench.api.errors import CellError
from quintain.bench.store.checkpoints import weights_hash


@dataclass(frozen=True)
class Writes:
    """Writes into what it is given, and shows what PGD's first step would."""

    write: Any
    access: str = "white-box"
    steps: int = 2

    def start(self, problem):
        return Iterate(problem.x)

    def step(self, problem, state):
        self.write(problem)
        return Iterate(problem.ball.project(state.x_adv + problem.ball.radius))


def rebound(problem):
    problem.ball.epsilon = problem.ball.epsilon * 4


PARTS = {
    "problem.x": lambda problem: problem.x.add_(0.05),
    "problem.x ": lambda problem: problem.x.data.add_(0.05),
    "problem.x  ": lambda problem: problem.x.numpy().fill(0.4),
    "problem.y": lambda problem: problem.y.zero_(),
    "problem.y ": lambda problem: problem.y.data.add_(1),
    "problem.ball.epsilon": lambda problem: problem.ball.epsilon.mul_(4),
    "problem.epsilon": lambda problem: problem.ball.epsilon.data.mul_(4),
    "problem.ball.epsilon ": rebound,
    "problem.ball.upper": lambda problem: problem.ball.upper.fill_(1.0),
    "problem.start_points": lambda problem: problem.start_points.zero_(),
}


def attacked(linear, attack, module=None, **named):
    epsilon = float(linear.distances["Linf"].max()) * 1.5
    settings = {"epsilons": [epsilon]} | named
    module = linear.module if module is None else module
    return evaluate(module, linear.images, linear.labels, attack, **settings)


@pytest.mark.parametrize("part", PARTS)
def test_a_cell_whose_attack_wrote_into_the_problem_fails(linear, part):
    before = linear.images.clone(), linear.labels.clone()
    with pytest.raises(CellError, match=f"the attack changed {part.strip()} in place"):
        attacked(linear, Writes(PARTS[part]))
    assert torch.equal(linear.images, before[0])
    assert torch.equal(linear.labels, before[1])


def test_an_attack_that_only_reads_is_left_in_peace(linear):
    assert attacked(linear, Writes(lambda problem: None)).flags == ()


@dataclass(frozen=True)
class WholeWriter:
    access: str = "decision"

    def run(self, problem):
        return problem.x.add_(0.5 * problem.ball.radius).clamp_(0, 1)


def test_whole_attacks_are_watched_too(linear):
    with pytest.raises(CellError, match=r"the attack changed problem\.x in place"):
        attacked(linear, WholeWriter())


def weights(module):
    return next(iter(module.parameters()))


MODELS = {
    "weights": lambda module: weights(module).data.add_(1.0),
    "weights that become NaN": lambda module: weights(module).data.fill_(torch.nan),
    "another weight": lambda module: setattr(
        module[1], "weight", nn.Parameter(module[1].weight.detach() * 2)
    ),
    "a buffer": lambda module: module[2].running_mean.data.fill_(9.0),
    "a new buffer": lambda module: module[2].register_buffer("more", torch.zeros(1)),
    "weights of another shape": lambda module: setattr(
        weights(module), "data", weights(module).data[:, :8].clone()
    ),
}


@pytest.mark.parametrize("what", MODELS)
def test_a_cell_whose_attack_wrote_into_the_model_fails_and_the_next_does_not_notice(linear, what):
    module = nn.Sequential(linear.module[0], linear.module[1], nn.BatchNorm1d(2)).eval()
    plain = attacked(linear, "fgsm", module).records
    before, verified = weights_hash(module), weights(module)
    written = []

    def write(problem):
        if not written:
            MODELS[what](module)
            written.append(what)

    with pytest.raises(CellError, match="the attack changed the model's "):
        attacked(linear, Writes(write), module)
    assert weights_hash(module) == before
    assert weights(module) is verified
    assert attacked(linear, "fgsm", module).records.equals(plain)


def test_what_a_model_itself_counts_is_not_the_attacks_fault(linear):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear.module
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return self.inner(x)

    module = Counts()
    assert attacked(linear, "fgsm", module).flags == ()
    assert int(module.calls) == 0  # evaluate leaves the model as it was


def test_images_changed_behind_the_harness_are_noticed(linear):
    images = linear.images.clone()
    writes = Writes(lambda problem: images.mul_(0.999))
    with pytest.raises(CellError, match="images that were given were changed in place"):
        evaluate(linear.module, images, linear.labels, writes, epsilons=[0.001])
