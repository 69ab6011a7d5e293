import numpy as np
import pytest
import torch
from builders import problem_at

from quintain.attacks.gradients.finite_differences import FiniteDifferences
from quintain.attacks.presets import pgd_finite_differences
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.attack import Answer
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.threat import NORMS, measure


class Slope:
    """A victim whose loss rises along one direction, and that keeps the points it was asked."""

    access = "white-box"

    def __init__(self, gradient):
        self.given = gradient
        self.points = []

    def gradient(self, x, objective):
        self.points.append(x)
        return Answer(self.given.expand_as(x), torch.zeros(len(x)), torch.zeros(len(x), 2))


def problem(norm="Linf", gradient=None, epsilon=0.1, count=3, step=0, **named):
    x = torch.full((count, 1, 2, 2), 0.5)
    victim = Slope(torch.tensor([[3.0, -4.0], [0.0, 0.0]]) if gradient is None else gradient)
    return problem_at(x, victim, norm=norm, epsilon=epsilon, step=step, **named)


def run(attack, at):
    state = attack.start(at)
    for _ in range(attack.steps):
        state = attack.step(at, state)
    return state.x_adv


@pytest.mark.parametrize(
    ("norm", "direction"),
    [
        ("Linf", [[1, -1], [0, 0]]),
        ("L2", [[0.6, -0.8], [0, 0]]),
        ("L1", [[0, -1], [0, 0]]),
    ],
)
def test_a_step_is_a_share_of_epsilon_along_the_steepest_direction(norm, direction):
    attack = PGD(steps=10, step_size=0.3, random_start=False)
    at = problem(norm)
    moved = attack.step(at, attack.start(at)).x_adv - 0.5
    assert torch.allclose(moved, 0.1 * 0.3 * torch.tensor(direction), atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_it_ends_on_the_sphere(norm):
    end = run(PGD(steps=10, random_start=False), problem(norm))
    assert measure(end.double() - 0.5, norm).numpy() == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(("steps", "size"), [(1, 1.0), (2, 1.0), (10, 0.25), (100, 0.025)])
def test_the_default_step_crosses_the_ball(steps, size):
    """From one side of the ball, so that the projection does not hide a step too long."""
    corner = torch.tensor([[0.4, 0.6], [0.5, 0.5]]).expand(3, 1, 2, 2)
    at = problem(warm=torch.ones(3).bool(), start_points=corner)
    attack = PGD(steps=steps)
    moved = attack.step(at, attack.start(at)).x_adv - corner
    assert moved[0, 0, 0, 0].item() == pytest.approx(0.1 * size, abs=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_start_lies_in_the_ball_and_a_plain_one_at_the_image(norm):
    at = problem(norm)
    assert torch.equal(PGD(random_start=False).start(at).x_adv, at.x)
    start = PGD().start(at).x_adv
    assert at.ball.contains(start).all()
    assert len(start.flatten(1).unique(dim=0)) == 3


def test_a_warm_start_goes_before_a_random_one():
    earlier = torch.full((3, 1, 2, 2), 0.55)
    at = problem(warm=torch.tensor([True, False, True]), start_points=earlier)
    start = PGD().start(at).x_adv
    assert torch.equal(start[[0, 2]], earlier[[0, 2]])
    assert not torch.equal(start[1], earlier[1])


def test_arguments_stay_as_they_were():
    at, attack = problem(), PGD(steps=3)
    state = attack.start(at)
    before, x = state.x_adv.clone(), at.x.clone()
    attack.step(at, state)
    assert torch.equal(state.x_adv, before)
    assert torch.equal(at.x, x)


def test_one_gradient_a_step():
    at = problem()
    run(PGD(steps=7), at)
    assert len(at.victim.points) == 7


@pytest.mark.parametrize("given", [{"steps": 0}, {"step_size": 0.0}, {"step_size": -1.0},
                                   {"step_size": float("nan")}])  # fmt: skip
def test_parameters_that_make_no_attack_are_refused(given):
    (name,) = given
    with pytest.raises(BadParameter, match=name):
        PGD(**given)


def test_what_a_failure_tells_of_smaller_epsilons():
    assert PGD(steps=2).monotone
    assert not PGD(steps=1).monotone
    assert PGD(steps=2, gradient=FiniteDifferences()).access == "score"


def test_more_steps_break_more(digits):
    robust = [
        evaluate(
            digits.module,
            digits.images,
            digits.labels,
            {"name": "pgd", "steps": steps, "random_start": False},
            epsilons=[0.1],
        ).curve["robust_accuracy"][0]
        for steps in (1, 3, 20)
    ]
    assert robust[0] > robust[1] > robust[2]


def test_finite_differences_break_what_backpropagation_breaks(digits):
    """The preset is PGD on the margin: on the same loss it nearly finds the same examples."""
    x, y = digits.images[:60], digits.labels[:60]
    black = evaluate(digits.module, x, y, pgd_finite_differences(steps=5), epsilons=[0.1])
    white = evaluate(
        digits.module,
        x,
        y,
        {"name": "pgd", "steps": 5, "random_start": False, "loss": "margin"},
        epsilons=[0.1],
    )
    broken = [np.array([one[0] for one in run.records["broken"]]) for run in (black, white)]
    assert (broken[0] != broken[1]).sum() <= 2
    assert broken[1].mean() > 0.2
