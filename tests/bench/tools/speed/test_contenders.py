"""The bare loop and quintain: what they find, and what it costs, to the last pass."""

from dataclasses import replace

import pytest
import torch

from quintain.bench.tools.speed.contenders import BARE, BareForward, Quintain, QuintainQueries
from quintain.bench.tools.speed.measurements import Counted, robust_accuracy

EPSILONS = (0.05, 0.12, 0.2)


def counted(contender, job, epsilons):
    """What a contender returns, and the rows that went through the model."""
    module = Counted(job.module).eval()
    torch.manual_seed(0)
    return contender.attack(replace(job, module=module), epsilons), module.tally


def test_the_bare_loop_makes_its_steps_and_nothing_else(job):
    outcome, tally = counted(BARE, job, EPSILONS)
    assert (tally.forward, tally.backward) == (len(job.x) * 4 * 3,) * 2
    assert outcome.passes is None


def test_the_bare_loop_stays_in_the_ball_and_fools(job):
    outcome = BARE.attack(job, EPSILONS)
    found = [outcome.x_adv(number) for number in range(3)]
    for x_adv, epsilon in zip(found, EPSILONS, strict=True):
        assert (x_adv - job.x).abs().max() <= epsilon + 1e-6
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
    robust = [robust_accuracy(job, *one) for one in zip(found, EPSILONS, strict=True)]
    assert robust[0] > robust[2]
    assert robust[2] < 0.5


def test_quintain_on_the_whole_budget_makes_the_same_steps_at_every_epsilon(job):
    outcome, tally = counted(
        Quintain(whole=True, precision="float32"), replace(job, batch_size=32), EPSILONS
    )
    forward, backward = outcome.passes
    assert backward == 4 * 3
    assert 4 * 3 <= forward <= 5 * 3  # and a last look at what is not broken yet
    # Besides: a gradient at each clean image, and one at each of the 24 of the model checks.
    assert tally.backward == len(job.x) * (4 * 3 + 1) + 24


def test_quintain_s_curve_costs_less_and_adversarial_examples_as_much(job):
    whole, curve = (
        one.attack(job, EPSILONS) for one in (Quintain(whole=True), Quintain(whole=False))
    )
    assert sum(curve.passes) < sum(whole.passes)
    for number, epsilon in enumerate(EPSILONS):
        mine = robust_accuracy(job, curve.x_adv(number), epsilon)
        assert mine <= robust_accuracy(job, whole.x_adv(number), epsilon) + 1 / len(job.x)


def test_quintain_agrees_with_the_bare_loop(job):
    ours, bare = (one.attack(job, EPSILONS) for one in (Quintain(whole=True), BARE))
    for number, epsilon in enumerate(EPSILONS):
        mine = robust_accuracy(job, ours.x_adv(number), epsilon)
        assert mine == pytest.approx(robust_accuracy(job, bare.x_adv(number), epsilon), abs=0.1)


def test_queries_are_two_for_each_coordinate_and_step(job):
    forward, backward = QuintainQueries(coordinates=3).attack(job, [0.05]).passes
    assert backward == 0
    assert 2 * 3 * 4 <= forward <= 2 * 3 * 4 + 1


@pytest.mark.parametrize(("images", "rows"), [(100, 32), (64, 32), (5, 32)])
def test_the_bare_forward_loop_shows_exactly_so_many_images(job, images, rows):
    outcome, tally = counted(BareForward(images, rows), job, [])
    assert (tally.forward, tally.backward) == (images, 0)
    assert outcome.x_adv is None


@pytest.mark.parametrize("fault", ["outside the ball", "not an image"])
def test_what_leaves_the_ball_or_the_box_fools_nobody(job, fault):
    epsilon = 0.2
    x_adv = BARE.attack(job, [epsilon]).x_adv(0)
    before = robust_accuracy(job, x_adv, epsilon)
    assert before < 1
    spoilt = x_adv.clone()
    spoilt[:, :, 0, 0] = -0.01 if fault == "not an image" else job.x[:, :, 0, 0] + epsilon + 0.01
    assert robust_accuracy(job, spoilt, epsilon) == 1.0
