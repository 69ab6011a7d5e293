import math
from dataclasses import dataclass

import pytest
import torch
from builders import Iterate
from torch import nn

from quintain.bench import evaluate
from quintain.bench.api.errors import CellError
from quintain.bench.engine.verifier import verify
from quintain.bench.victim.model import Network


class Threshold(nn.Module):
    """Class 1 where the mean is at least 0.7, else class 0."""

    def forward(self, x):
        mean = x.flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([0.7 - mean, mean - 0.7], dim=1)


def verified(points, *, norm="Linf", epsilon=0.25, goal=0, targeted=False, dtype=torch.float32):
    x_adv = torch.tensor(points, dtype=dtype).reshape(-1, 1, 1, 2)
    count = len(x_adv)
    clean = torch.full((count, 1, 1, 2), 0.5)
    return verify(
        Network(Threshold(), torch.device("cpu"), 16),
        clean,
        x_adv,
        torch.full((count,), goal),
        torch.full((count,), epsilon, dtype=torch.float64),
        norm,
        targeted=targeted,
    )[0].tolist()


def above(value):
    return torch.nextafter(torch.tensor(value), torch.tensor(2.0)).item()


def test_what_is_adversarial_within_the_ball_holds():
    assert verified([[0.75, 0.75]]) == [True]
    assert verified([[0.75, 0.75]], targeted=True, goal=1) == [True]


def test_one_bit_outside_the_ball_is_outside():
    assert verified([[above(0.75), 0.75]]) == [False]
    assert verified([[0.75, 0.75]], epsilon=math.nextafter(0.25, 0)) == [False]
    assert verified([[1.0, 0.5]], norm="L2", epsilon=0.5) == [True]
    assert verified([[1.0, above(0.5)]], norm="L2", epsilon=0.5) == [False]
    assert verified([[0.75, 0.75]], norm="L1", epsilon=0.5) == [True]
    assert verified([[0.75, above(0.75)]], norm="L1", epsilon=0.5) == [False]


def test_outside_the_box_is_no_image():
    assert verified([[above(1.0), 0.9], [1.0, 0.9], [0.9, 1.5]], epsilon=9.0) == [
        False,
        True,
        False,
    ]
    assert verified([[-1e-7, 0.4]], goal=1, epsilon=9.0) == [False]


def test_the_clean_class_is_no_success():
    assert verified([[0.6, 0.6]]) == [False]
    assert verified([[0.75, 0.75]], targeted=True, goal=0) == [False]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_image(value):
    assert verified([[value, 0.75], [0.75, 0.75]]) == [False, True]


def test_the_order_of_the_answers_is_that_of_the_candidates():
    points = [[0.75, 0.75] if i % 3 == 0 else [0.6, 0.6] for i in range(100)]
    assert verified(points) == [i % 3 == 0 for i in range(100)]


# ---------------------------------------------------------------------------- attacks that cheat


@dataclass(frozen=True)
class Cheat:
    trick: object
    access: str = "decision"
    steps: int = 1

    def start(self, problem):
        return Iterate(problem.x.clone())

    def step(self, problem, state):
        return Iterate(self.trick(problem))


def report_everything(problem):
    outcomes = problem.victim._counters
    outcomes.distance = torch.zeros_like(outcomes.distance)
    return problem.x


def report_a_point_outside(problem):
    problem.victim._counters.distance = torch.zeros_like(problem.victim._counters.distance)
    problem.victim._counters.nearest = torch.ones_like(problem.x)
    return problem.x


def move_the_clean_image(problem):
    problem.x.fill_(0.9)
    return torch.full_like(problem.x, 0.95)


def move_the_label(problem):
    problem.y.fill_(1)
    return problem.x.clone()


def widen_the_ball(problem):
    problem.ball.epsilon.fill_(9.0)
    return torch.ones_like(problem.x)


def leave_the_box(problem):
    return torch.full_like(problem.x, 3.0)


def leave_the_ball(problem):
    return torch.ones_like(problem.x)


@pytest.mark.parametrize("search", ["bracket", "exhaustive"])
@pytest.mark.parametrize(
    ("trick", "what"),
    [(move_the_clean_image, "x"), (move_the_label, "y"), (widen_the_ball, "ball.epsilon")],
)
def test_to_write_where_attacks_may_only_read_fails_the_cell(trick, what, search):
    x, y = torch.full((6, 1, 2, 2), 0.5), torch.zeros(6, dtype=torch.int64)
    with pytest.raises(CellError, match=f"changed problem.{what} in place"):
        evaluate(Threshold(), x, y, Cheat(trick), epsilons=[0.05, 0.1], search=search)
    assert (x == 0.5).all()
    assert (y == 0).all()


@pytest.mark.parametrize("search", ["bracket", "exhaustive"])
@pytest.mark.parametrize(
    ("trick", "flagged"),
    [
        (report_everything, True),
        (report_a_point_outside, True),
        (leave_the_box, False),
        (leave_the_ball, False),
    ],
)
def test_cheating_scores_nothing(trick, flagged, search):
    x, y = torch.full((6, 1, 2, 2), 0.5), torch.zeros(6, dtype=torch.int64)
    result = evaluate(Threshold(), x, y, Cheat(trick), epsilons=[0.05, 0.1], search=search)
    assert result.curve["robust_accuracy"].tolist() == [1.0, 1.0]
    assert result.records["distance"].isna().all()
    assert torch.equal(result.adversarials(0.1), x)
    assert (x == 0.5).all()
    assert (y == 0).all()
    assert ("not-reproduced:6" in result.flags) == flagged
    assert result.records["not_reproduced"].all() == flagged


def test_a_not_reproduced_candidate_leaves_the_honest_finds():
    def mixed(problem):
        honest = problem.ball.project(torch.ones_like(problem.x))
        problem.victim.labels(honest)
        if (problem.draws.example == 0).any():
            problem.victim._counters.nearest[problem.draws.example == 0] = 2.0
        return honest

    x, y = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    result = evaluate(Threshold(), x, y, Cheat(mixed), epsilons=[0.3])
    assert result.records["broken"].tolist() == [[False], [True], [True]]
    assert result.flags == ("not-reproduced:1",)


# ------------------------------------------------------------------- models that cannot be trusted


class Scaled(nn.Module):
    def __init__(self, inner, factor):
        super().__init__()
        self.inner = inner
        self.factor = factor

    def forward(self, x):
        return self.factor * self.inner(x)


def test_masked_gradients_are_flagged(digits):
    """Saturated logits: the softmax is one-hot, so the gradient of the cross-entropy is zero."""
    attack = {"name": "pgd", "steps": 5, "random_start": False}
    x, y = digits.images[:60], digits.labels[:60]
    masked = evaluate(Scaled(digits.module, 1e4), x, y, attack, epsilons=[0.3])
    plain = evaluate(digits.module, x, y, attack, epsilons=[0.3])
    assert [flag.partition(":")[0] for flag in masked.flags] == [
        "no-progress",
        "vanishing-gradients",
    ]
    assert plain.flags == ()
    assert masked.curve["robust_accuracy"][0] > plain.curve["robust_accuracy"][0] + 0.3
    through = evaluate(
        Scaled(digits.module, 1e4), x, y, {**attack, "loss": "margin"}, epsilons=[0.3]
    )
    assert through.curve["robust_accuracy"][0] == plain.curve["robust_accuracy"][0] < 0.5


class Noisy(nn.Module):
    """Another answer every time."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.inner(x) + 9 * torch.randn(len(x), 10, generator=self.generator)


def test_answers_that_change_are_flagged(digits):
    result = evaluate(
        Noisy(digits.module), digits.images[:60], digits.labels[:60], "fgsm", epsilons=[0.001]
    )
    assert any(flag.startswith("unstable-predictions:") for flag in result.flags)
