from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quintain.bench.api.errors import AccessDenied
from quintain.bench.api.threat import make_ball
from quintain.bench.victim.counters import UNLIMITED, AttackCounters
from quintain.bench.victim.decision import decision_of, fooled, margin
from quintain.bench.victim.model import Network
from quintain.bench.victim.oracle import AttackedModel, Oracle


class Threshold(nn.Module):
    """Class 1 where the first pixel is at least 0.7, else class 0; class 2 never."""

    def forward(self, x):
        pixel = x[:, 0, 0, :1]
        return torch.cat([0.7 - pixel, pixel - 0.7, torch.full_like(pixel, -9.0)], dim=1)


def network():
    ready = Network(Threshold(), torch.device("cpu"), 64)
    ready.logits(torch.zeros(1, 1, 1, 2))
    return ready


def counters(count, budget=UNLIMITED, norm="Linf", goal=0, epsilon=0.4, radii=(0.1, 0.4)):
    x = torch.full((count, 1, 1, 2), 0.5)
    ball = make_ball(norm, x, torch.full((count,), epsilon, dtype=torch.float64))
    grid = torch.tensor(radii, dtype=torch.float64).repeat(count, 1)
    return AttackCounters.open(ball, torch.full((count,), goal), torch.full((count,), budget), grid)


def victim(outcomes, access="white-box", *, targeted=False, going=None, **named):
    model = AttackedModel(decision_of(network(), targeted=targeted), access, **named)
    return Oracle(model, outcomes, going=going)


def images(*pixels):
    x = torch.full((len(pixels), 1, 1, 2), 0.5)
    x[:, 0, 0, 0] = torch.tensor(pixels)
    return x


def first_logit(logits):
    return logits[:, 0]


ALLOWED = {
    "white-box": {"gradient", "scores", "labels"},
    "score": {"scores", "labels"},
    "decision": {"labels"},
}


@pytest.mark.parametrize("access", ALLOWED)
@pytest.mark.parametrize("question", ["gradient", "scores", "labels"])
def test_the_access_level_is_enforced(access, question):
    outcomes = counters(2)
    asked = victim(outcomes, access)
    arguments = (first_logit,) if question == "gradient" else ()
    if question in ALLOWED[access]:
        getattr(asked, question)(images(0.5, 0.5), *arguments)
        assert outcomes.counts["queries"].tolist() == [1, 1]
    else:
        with pytest.raises(AccessDenied, match=f"with {access} access"):
            getattr(asked, question)(images(0.5, 0.5), *arguments)
        assert outcomes.counts["queries"].tolist() == [0, 0]


def test_scores_carry_no_gradient():
    x = images(0.5).requires_grad_()
    assert not victim(counters(1), "score").scores(x).requires_grad


def test_answers_are_the_models():
    asked = victim(counters(3))
    x = images(0.2, 0.75, 0.9)
    assert torch.equal(asked.scores(x), Threshold()(x))
    assert asked.labels(x).tolist() == [0, 1, 1]
    answer = asked.gradient(x, first_logit)
    assert answer.gradient.flatten().tolist() == [-1.0, 0.0] * 3
    assert (asked.n_classes, asked.access) == (3, "white-box")


def test_every_question_is_counted_for_its_example():
    outcomes = counters(3)
    asked = victim(outcomes)
    asked.scores(images(*[0.5] * 5), torch.tensor([2, 0, 2, 2, 0]))
    asked.labels(images(0.5), torch.tensor([1]))
    asked.gradient(images(0.5, 0.5, 0.5), first_logit)
    assert outcomes.counts["queries"].tolist() == outcomes.counts["forward"].tolist() == [3, 2, 4]
    assert outcomes.counts["backward"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("limited", [False, True])
def test_examples_that_are_done_ask_nothing_more(limited):
    outcomes = counters(3, budget=3)
    asked = victim(outcomes, going=torch.tensor([True, False, True]), limited=limited)
    asked.labels(images(0.9, 0.9, 0.9, 0.5), torch.tensor([0, 1, 1, 2]))
    asked.gradient(images(0.8, 0.8, 0.5), first_logit)
    assert outcomes.counts["queries"].tolist() == outcomes.counts["forward"].tolist() == [2, 0, 2]
    assert outcomes.counts["backward"].tolist() == [1, 0, 1]
    assert outcomes.broken.tolist() == [True, False, False]
    assert asked.remaining.tolist() == ([1, 3, 1] if limited else [3, 3, 3])


class Shifted(Threshold):
    """Sees the first pixel a little brighter than it is."""

    def forward(self, x):
        return super().forward(x + 0.04)


def test_where_a_fast_copy_cannot_tell_the_model_is_asked():
    fast = Network(Shifted(), torch.device("cpu"), 64, tolerance=0.1)
    outcomes = counters(5)
    asked = victim(outcomes, fast=fast)
    # the copy is ahead by 0.12, 0.09, 0.02, -0.02 and -0.3: the middle ones are too close to tell
    asked.gradient(images(0.72, 0.705, 0.67, 0.65, 0.51), first_logit)
    assert outcomes.broken.tolist() == [True, True, False, False, False]
    assert (
        outcomes.counts["forward"].tolist()
        == outcomes.counts["queries"].tolist()
        == [1, 2, 2, 2, 1]
    )
    assert outcomes.counts["backward"].tolist() == [1] * 5
    outcomes = counters(2, goal=1)
    victim(outcomes, fast=fast, targeted=True).gradient(images(0.67, 0.72), first_logit)
    assert outcomes.broken.tolist() == [False, True]


def test_inputs_without_an_owner_are_refused():
    with pytest.raises(ValueError, match="3 inputs for 2 examples: pass rows"):
        victim(counters(2)).scores(images(0.5, 0.5, 0.5))


questions = st.lists(
    st.tuples(
        st.sampled_from(["scores", "labels", "gradient"]),
        st.lists(st.integers(0, 2), min_size=1, max_size=12),
    ),
    max_size=6,
)


@given(questions, st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_no_budget_is_ever_exceeded(questions, budget):
    """Against a tally kept by hand: first come, first served, and not one more."""
    outcomes = counters(3, budget=budget)
    asked, spent, gradients = victim(outcomes), Counter(), Counter()
    for question, owners in questions:
        if question == "gradient":
            owners = [0, 1, 2]
            answer = asked.gradient(images(0.5, 0.5, 0.5), first_logit)
            refused = answer.gradient.isnan().flatten(1).all(1)
            assert torch.equal(refused, answer.logits.isnan().all(1))
            assert torch.equal(refused, answer.loss.isnan())
        else:
            found = getattr(asked, question)(images(*[0.5] * len(owners)), torch.tensor(owners))
            refused = found.isnan().all(1) if question == "scores" else found == -1
        expected = []
        for owner in owners:
            expected.append(spent[owner] >= budget)
            spent[owner] += not expected[-1]
            gradients[owner] += question == "gradient" and not expected[-1]
        assert refused.tolist() == expected
    assert outcomes.counts["queries"].tolist() == [spent[row] for row in range(3)]
    assert outcomes.counts["backward"].tolist() == [gradients[row] for row in range(3)]
    assert asked.remaining.tolist() == [budget - spent[row] for row in range(3)]
    assert outcomes.exhausted.tolist() == [spent[row] == budget for row in range(3)]


def test_what_is_refused_is_not_shown_to_the_model():
    outcomes = counters(1, budget=1)
    asked = victim(outcomes)
    asked.labels(images(0.5, 0.9), torch.tensor([0, 0]))
    assert outcomes.distance.item() == float("inf")
    asked.gradient(images(0.9), first_logit)
    assert not outcomes.broken.any()


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([-0.5, 0.2, 0.69, 0.71, 0.8, 1.0, 1.2])),
             min_size=1, max_size=10)
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_the_nearest_adversarial_point_is_remembered(asked):
    """Against a search by hand: adversarial from 0.7 on, an image up to 1."""
    outcomes = counters(2)
    for part in (asked[:4], asked[4:]):
        if part:
            owners, pixels = zip(*part, strict=True)
            victim(outcomes, "decision").labels(images(*pixels), torch.tensor(owners))
    for row in range(2):
        hits = [pixel for owner, pixel in asked if owner == row and 0.7 <= pixel <= 1.0]
        if hits:
            assert outcomes.nearest[row, 0, 0, 0].item() == pytest.approx(min(hits))
            assert outcomes.distance[row].item() == pytest.approx(min(hits) - 0.5, abs=1e-7)
            assert bool(outcomes.broken[row]) == (min(hits) <= 0.9)
        else:
            assert outcomes.distance[row].item() == float("inf")
            assert torch.equal(outcomes.nearest[row], outcomes.ball.x[row])


def test_of_equals_the_one_asked_first_is_kept():
    outcomes = counters(1)
    x = images(0.9, 0.8, 0.8)
    x[1, 0, 0, 1], x[2, 0, 0, 1] = 0.6, 0.4
    victim(outcomes).labels(x, torch.tensor([0, 0, 0]))
    assert outcomes.nearest[0, 0, 0].tolist() == pytest.approx([0.8, 0.6])
    victim(outcomes).labels(x[2:])
    assert outcomes.nearest[0, 0, 0].tolist() == pytest.approx([0.8, 0.6])


def test_points_asked_for_gradients_count_as_found():
    outcomes = counters(2)
    victim(outcomes).gradient(images(0.8, 0.6), first_logit)
    assert outcomes.broken.tolist() == [True, False]


@pytest.mark.parametrize(("norm", "distance"), [("Linf", 0.4), ("L2", 0.5), ("L1", 0.7)])
def test_distance_is_measured_in_the_norm_of_the_threat(norm, distance):
    outcomes = counters(1, norm=norm)
    x = images(0.8)
    x[0, 0, 0, 1] = 0.1
    victim(outcomes).labels(x)
    assert outcomes.distance.item() == pytest.approx(distance, abs=1e-7)


def test_with_a_target_only_the_target_counts():
    outcomes = counters(2, goal=1)
    outcomes.y[1] = 2
    victim(outcomes, targeted=True).labels(images(0.8, 0.8))
    assert outcomes.broken.tolist() == [True, False]


def test_fooled_is_leaving_the_label_or_reaching_the_target():
    logits, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    assert fooled(logits, y, targeted=False).tolist() == [False, True]
    assert fooled(logits, y, targeted=True).tolist() == [True, False]


@pytest.mark.parametrize("targeted", [False, True])
def test_a_lead_is_lost_exactly_when_the_goal_is_reached(targeted):
    logits = torch.tensor([[2.0, 1.0, -1.0], [2.0, 3.0, -1.0]])
    y = torch.tensor([0, 0])
    expected = [-1.0, 1.0] if targeted else [1.0, -1.0]
    assert margin(logits, y, targeted=targeted).tolist() == expected
    assert (margin(logits, y, targeted=targeted) < 0).tolist() == fooled(
        logits, y, targeted=targeted
    ).tolist()
