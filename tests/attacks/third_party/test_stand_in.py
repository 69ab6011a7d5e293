"""Whose image is whose, budgets, and access, with a library that is made up."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from quintain.attacks.third_party.stand_in import StandIn
from quintain.attacks.third_party.whole import Task, ThirdPartyAttack
from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter, CellError


@dataclass(frozen=True)
class Made(ThirdPartyAttack):
    """Calls a function: (stand_in, task) -> images."""

    act: object = field(default=None, kw_only=True, hash=False, repr=False)

    @property
    def title(self):
        return f"made:{self.name}"

    def perturb(self, stand_in: StandIn, task: Task):
        return self.act(stand_in, task)


def made(act, **named):
    return Made("up", {}, "1", act=act, **named)


class Counting(nn.Module):
    """How many images it was shown that are not the harness's filling, and how many pull-backs."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.shown = inner, []

    def forward(self, x):
        self.shown.append(len(x))
        return self.inner(x)


def sign_step(stand_in, task):
    x = task.x.clone().requires_grad_()
    nn.functional.cross_entropy(stand_in(x), task.y).backward()
    return (x + task.epsilon * x.grad.sign()).clamp(0, 1).detach()


def test_each_epsilon_is_a_call_of_its_own_and_the_optimum_is_found(linear):
    seen = []

    def act(stand_in, task):
        seen.append((task.epsilon, len(task.x)))
        return sign_step(stand_in, task)

    grid = linear.grid("Linf", 5)
    result = evaluate(linear.module, linear.images, linear.labels, made(act), epsilons=grid)
    distances = linear.distances["Linf"]
    wanted = [(distances > epsilon).mean() for epsilon in grid]
    assert result.curve["robust_accuracy"].tolist() == pytest.approx(wanted)
    assert {epsilon for epsilon, _ in seen} <= set(grid)
    assert result.stages == ("made:up",)
    assert result.choice is None  # it differentiates the victim itself: no copy is on trial
    assert result.records["backward"].tolist() == result.records["attacked"].map(sum).tolist()
    # one forward pass for the gradient and one for the prediction, each attempt
    assert (result.records["forward"] == 2 * result.records["backward"]).all()


def test_an_attack_of_the_nearest_point_is_called_once_for_the_curve(linear):
    calls = []

    def act(stand_in, task):
        calls.append(len(task.x))
        x = task.x.clone().requires_grad_()
        logits = stand_in(x)
        gap = logits.gather(1, task.y[:, None])[:, 0] - logits.gather(1, 1 - task.y[:, None])[:, 0]
        (slope,) = torch.autograd.grad(gap.sum(), x)
        length = slope.flatten(1).norm(dim=1)
        move = (1.001 * gap / length**2).reshape(-1, 1, 1, 1) * slope
        return (x - move).detach()

    grid = linear.grid("L2", 5)
    attack = made(act, minimum_norm=True, norms=("L2",))
    result = evaluate(linear.module, linear.images, linear.labels, attack, norm="L2", epsilons=grid)
    wanted = [(linear.distances["L2"] > epsilon).mean() for epsilon in grid]
    assert result.curve["robust_accuracy"].tolist() == pytest.approx(wanted)
    assert calls == [len(linear.images)]
    assert (result.records["backward"] == 1).all()
    with pytest.raises(BadParameter, match="made:up works in L2, not in Linf"):
        evaluate(linear.module, linear.images, linear.labels, attack, epsilons=[0.1])


def test_of_a_single_step_a_failure_tells_nothing_of_smaller_epsilons(linear):
    grid = linear.grid("Linf", 4)
    attack = made(lambda stand_in, task: task.x, monotone=False)
    result = evaluate(linear.module, linear.images, linear.labels, attack, epsilons=grid)
    assert result.records["attacked"].map(all).all()
    attack = made(lambda stand_in, task: task.x)
    result = evaluate(linear.module, linear.images, linear.labels, attack, epsilons=grid)
    assert not result.records["attacked"].map(all).any()


def test_survivors_and_probes_are_put_down_to_the_nearest_image(linear):
    def act(stand_in, task):
        odd = task.x[1::2] + 0.001
        stand_in(odd)
        last = task.x[-1:].repeat(3, 1, 1, 1) + 0.002 * torch.arange(3)[:, None, None, None]
        stand_in(last)
        return task.x

    result = evaluate(
        linear.module, linear.images, linear.labels, made(act), epsilons=[0.01], batch_size=60
    )
    queries = result.records["queries"].tolist()
    wanted = [1 + number % 2 for number in range(60)]  # one is the prediction's
    wanted[-1] += 3
    assert queries == wanted


def test_an_attack_that_goes_image_by_image_is_given_them_one_by_one(linear):
    def act(stand_in, task):
        assert len(task.x) == 1
        stand_in(torch.zeros(7, 1, 4, 4))  # nearest to nobody in particular
        return task.x

    result = evaluate(
        linear.module, linear.images, linear.labels, made(act, singly=True), epsilons=[0.01]
    )
    assert (result.records["queries"] == 8).all()


@pytest.mark.parametrize("budget", [1, 3, 10])
def test_the_budget_ends_an_attack_that_would_go_on_for_ever(linear, budget):
    def act(stand_in, task):
        while True:
            assert stand_in(task.x + 0.001).isfinite().all()

    model = Counting(linear.module)
    result = evaluate(
        model, linear.images, linear.labels, made(act), epsilons=[0.01, 0.02], query_budget=budget
    )
    assert (result.records["queries"] == budget).all()


def test_who_has_spent_more_than_the_others_does_not_stop_them(linear):
    def act(stand_in, task):
        for _ in range(10):
            stand_in(task.x[:5])
        asked = stand_in(task.x)
        assert (asked[:5] == 0).all()
        assert (asked[5:] != 0).any(dim=1).all()
        return sign_step(stand_in, task)

    result = evaluate(
        linear.module, linear.images, linear.labels, made(act), epsilons=[0.5],
        query_budget=8, batch_size=60,
    )  # fmt: skip
    assert result.records["queries"].tolist()[:5] == [8] * 5
    broken = result.records["broken"].map(any).tolist()
    assert broken == [False] * 5 + [True] * 55


def test_a_decision_based_attack_sees_classes_alone_and_a_score_based_one_no_gradient(linear):
    logits = {}

    def act(stand_in, task):
        logits[stand_in._access] = stand_in(task.x.clone().requires_grad_())
        return task.x

    for access in ("decision", "score"):
        attack = made(act, access=access)
        evaluate(linear.module, linear.images, linear.labels, attack, epsilons=[0.01])
        assert not logits[access].requires_grad
    assert torch.equal(logits["decision"].sum(1), torch.ones(60))
    assert torch.equal(logits["decision"].argmax(1), linear.labels)
    assert torch.equal(logits["score"], linear.module(linear.images))


def test_what_goes_wrong_in_the_library_is_an_error_and_no_robustness(linear):
    def act(stand_in, task):
        raise KeyError("no such thing")

    with pytest.raises(CellError, match="made:up: KeyError: 'no such thing'"):
        evaluate(linear.module, linear.images, linear.labels, made(act), epsilons=[0.01])


def test_images_that_are_not_finite_are_an_error(linear):
    def asks(stand_in, task):
        stand_in(task.x / 0)
        return task.x

    for act, says in ((asks, "asked about"), (lambda stand_in, task: task.x / 0, "returned")):
        with pytest.raises(CellError, match=f"made:up {says} images that are not finite"):
            evaluate(linear.module, linear.images, linear.labels, made(act), epsilons=[0.01])


def test_every_generator_is_seeded_and_put_back(linear):
    import random

    import numpy as np

    drawn = []

    def act(stand_in, task):
        drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))
        return task.x

    def run(seed):
        drawn.clear()
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        evaluate(
            linear.module, linear.images, linear.labels, made(act), epsilons=[0.01, 0.02], seed=seed
        )
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == np.random.get_state()[1].tolist()
        assert before[2] == random.getstate()
        return list(drawn)

    first = run(1)
    assert run(1) == first
    assert run(2) != first


def test_what_it_returns_is_brought_into_the_ball(linear):
    """Half a unit in the last place outside must not cost a library its adversarial example."""
    epsilon = linear.grid("Linf", 3)[1]
    attack = made(lambda stand_in, task: sign_step(stand_in, task) + 0.3)
    result = evaluate(linear.module, linear.images, linear.labels, attack, epsilons=[epsilon])
    moved = (result.adversarials(epsilon) - linear.images).abs().amax()
    assert moved <= epsilon
