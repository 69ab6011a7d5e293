import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from builders import Iterate
from torch import nn

from quintain.attacks.gradients.finite_differences import FiniteDifferences
from quintain.attacks.parts.losses import Margin
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.errors import AccessDenied, CellError
from quintain.bench.api.progress import Silent
from quintain.bench.api.threat import Epsilon
from quintain.bench.datasets.in_memory import TensorImages
from quintain.bench.engine.cascade import CascadeRunner
from quintain.bench.engine.config import AttackStage, CellConfig
from quintain.bench.engine.loop import AttackInputs
from quintain.bench.victim.model import Network

PIXELS = FiniteDifferences(coordinates=16)


@dataclass(frozen=True)
class Scripted:
    """Shows what `move(problem, x_adv)` makes of the iterate; keeps the problems it saw."""

    move: object
    access: str = "decision"
    steps: int = 1
    monotone: bool = True

    def start(self, problem):
        return Iterate(problem.initial(random_start=False))

    def step(self, problem, state):
        return Iterate(self.move(problem, state.x_adv))


@dataclass(frozen=True)
class Whole:
    """An attack in one piece."""

    answer: object
    access: str = "decision"
    monotone: bool = True

    def run(self, problem):
        return self.answer(problem)


class Step(nn.Module):
    """Class 1 from a mean of 0.7 on, else class 0: no gradient, only a threshold."""

    def forward(self, x):
        mean = x.flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([0.7 - mean, mean - 0.7], dim=1)


def grey(count=4, value=0.5):
    return torch.full((count, 1, 2, 2), value), torch.zeros(count, dtype=torch.int64)


def brightest(problem, x):
    """Move as far up as the ball allows."""
    return problem.ball.project(torch.ones_like(x))


def on_digits(digits, attack, *, count=80, **named):
    settings = {"norm": "Linf", "epsilons": [0.02, 0.05, 0.1, 0.2, 0.3], "seed": 1} | named
    rows = settings.pop("rows", torch.arange(count))
    return evaluate(
        digits.module, digits.images[rows], digits.labels[rows], attack, indices=rows, **settings
    )


# ------------------------------------------------------------------ the optimum of a linear model


@pytest.mark.parametrize("search", ["bracket", "exhaustive"])
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("targeted", [False, True])
def test_pgd_reaches_the_optimum_on_a_linear_model(linear, norm, search, targeted):
    # In L2 a random start is forgotten as exp(-steps * step_size): here all but 5e-5 of it.
    epsilons = linear.grid(norm, 6)
    result = evaluate(
        linear.module,
        linear.images,
        linear.labels,
        {"name": "pgd", "steps": 40, "step_size": 0.25},
        norm=norm,
        epsilons=epsilons,
        search=search,
        targets=1 - linear.labels if targeted else None,
    )
    for point, epsilon in enumerate(epsilons):
        expected = linear.distances[norm] < epsilon
        assert [one[point] for one in result.records["broken"]] == expected.tolist()
        assert result.curve["robust_accuracy"][point] == pytest.approx((~expected).mean())
    assert result.flags == ()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_pgd_as_it_comes_is_within_a_thousandth_of_the_optimum(linear, norm):
    epsilons = linear.grid(norm, 6)
    result = evaluate(
        linear.module,
        linear.images,
        linear.labels,
        norm=norm,
        epsilons=epsilons,
        search="exhaustive",
    )
    for point, epsilon in enumerate(epsilons):
        broken = np.array([one[point] for one in result.records["broken"]])
        assert broken[linear.distances[norm] < 0.999 * epsilon].all()
        assert not broken[linear.distances[norm] > epsilon].any()


def test_the_smallest_distance_found_is_never_below_the_true_one(linear):
    result = evaluate(
        linear.module, linear.images, linear.labels, "pgd", norm="L2", epsilons=linear.grid("L2", 6)
    )
    found = result.records["distance"].to_numpy()
    broken = ~np.isnan(found)
    assert broken.any()
    assert (found[broken] >= linear.distances["L2"][broken] * (1 - 1e-6)).all()


# --------------------------------------------------------------- the batch does not change numbers

ATTACKS = {
    "pgd": [{"name": "pgd", "steps": 5, "restarts": 2}],
    "cascade": [{"name": "fgsm"}, {"name": "pgd", "steps": 5}],
    "finite differences": [PGD(steps=3, loss=Margin(), gradient=PIXELS)],
}


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_batch_size_and_order_change_nothing(digits, attack, norm):
    epsilons = [0.02, 0.05, 0.1, 0.2] if norm == "Linf" else [0.3, 0.6, 1.2, 2.4]
    named = {"count": 60, "norm": norm, "epsilons": epsilons}
    reference = on_digits(digits, ATTACKS[attack], batch_size=32, **named)
    robust = reference.curve["robust_accuracy"]
    assert robust.iloc[-1] < robust.iloc[0] - 0.1  # something is at stake
    for batch_size in (16, 128):
        other = on_digits(digits, ATTACKS[attack], batch_size=batch_size, **named)
        pd.testing.assert_frame_equal(other.records, reference.records)
        for epsilon in epsilons:
            assert torch.equal(other.adversarials(epsilon), reference.adversarials(epsilon))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:45]
    part = on_digits(digits, ATTACKS[attack], rows=order, **named)
    expected = reference.records.iloc[order.tolist()].reset_index(drop=True)
    pd.testing.assert_frame_equal(part.records, expected)
    assert torch.equal(part.adversarials(epsilons[1]), reference.adversarials(epsilons[1])[order])


def test_the_seed_changes_the_random_starts(digits):
    first, second = (
        on_digits(digits, "pgd", seed=seed, count=20, search="exhaustive") for seed in (0, 1)
    )
    assert not torch.equal(first.adversarials(0.1), second.adversarials(0.1))


# ------------------------------------------------------------------------------ search and cost


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_bracket_is_no_weaker_than_exhaustion_and_cheaper(digits, norm):
    grid = np.linspace(0.02, 0.3, 8) if norm == "Linf" else np.linspace(0.2, 3.0, 8)
    curves = {
        search: on_digits(
            digits,
            {"name": "pgd", "steps": 20},
            norm=norm,
            epsilons=grid.tolist(),
            search=search,
            count=150,
        ).curve
        for search in ("bracket", "exhaustive")
    }
    gap = curves["bracket"]["robust_accuracy"] - curves["exhaustive"]["robust_accuracy"]
    assert (gap <= 1 / 150).all()
    assert curves["bracket"]["forward_mean"][0] < curves["exhaustive"]["forward_mean"][0]
    assert (curves["exhaustive"]["attacked"] == 1).all()
    assert curves["bracket"]["attacked"].mean() < 0.6


def test_without_early_leaving_every_attempt_takes_all_its_steps(digits):
    records = on_digits(
        digits, {"name": "pgd", "steps": 7}, epsilons=[0.1], early_leaving=False
    ).records
    active = records[records["under_attack"]]
    robust = ~active["broken"].map(lambda one: one[0])
    assert 0 < robust.sum() < len(active)
    assert (active["backward"] == 7).all()
    # the iterate after the last step is judged, where no earlier one was adversarial
    assert set(active["forward"]) <= {7, 8}
    assert (active["forward"][robust] == 8).all()


def test_leaving_early_saves_passes_and_finds_the_same(digits):
    early, late = (
        on_digits(digits, {"name": "pgd", "steps": 7}, epsilons=[0.1], early_leaving=wanted)
        for wanted in (True, False)
    )
    assert early.records["broken"].tolist() == late.records["broken"].tolist()
    assert early.records["forward"].sum() < late.records["forward"].sum()


def test_queries_of_finite_differences_are_exact(digits):
    """Two for each coordinate, and one for the last iterate where no probe was adversarial."""
    attack = PGD(steps=2, random_start=False, loss=Margin(), gradient=PIXELS)
    records = on_digits(digits, attack, epsilons=[1e-4]).records
    active = records[records["under_attack"]]
    assert (active["queries"] == 2 * 2 * 16 + 1).all()
    assert (active["backward"] == 0).all()
    whole = PGD(steps=1, random_start=False, loss=Margin(), gradient=FiniteDifferences())
    records = on_digits(digits, whole, epsilons=[1e-4], count=10).records
    assert set(records["queries"][records["under_attack"]]) == {2 * 64 + 1}


def test_misclassified_images_are_never_attacked(digits):
    wrong = digits.labels[:40].clone()
    wrong[::2] = (wrong[::2] + 1) % 10
    records = evaluate(
        digits.module, digits.images[:40], wrong, {"name": "pgd", "steps": 3}, epsilons=[0.3]
    ).records
    missed = records["clean_prediction"] != records["label"]
    assert missed.sum() >= 20
    assert not records["under_attack"][missed].any()
    assert (records.loc[missed, ["forward", "backward", "queries"]] == 0).all(axis=None)
    assert not records["broken"][missed].map(any).any()


def test_images_of_the_target_class_are_not_attacked_towards_it(digits):
    predicted = digits.module(digits.images[:40]).argmax(1)
    targets = torch.where(digits.labels[:40] == 3, 4, 3)
    records = evaluate(
        digits.module,
        digits.images[:40],
        digits.labels[:40],
        {"name": "pgd", "steps": 3},
        targets=targets,
        epsilons=[0.3],
    ).records
    expected = (predicted == digits.labels[:40]) & (predicted != targets)
    assert records["under_attack"].tolist() == expected.tolist()


def test_targeted_adversarials_are_taken_for_the_target(digits):
    targets = (digits.labels[:60] + 1) % 10
    result = on_digits(digits, {"name": "pgd", "steps": 20}, count=60, targets=targets)
    broken = torch.tensor([one[-1] for one in result.records["broken"]])
    assert broken.sum() > 10
    predicted = digits.module(result.adversarials(0.3)).argmax(1)
    assert torch.equal(predicted[broken], targets[broken])
    untargeted = on_digits(digits, {"name": "pgd", "steps": 20}, count=60)
    assert untargeted.curve["robust_accuracy"][2] <= result.curve["robust_accuracy"][2]


# ------------------------------------------------------------------------------------- restarts


@pytest.mark.parametrize(("restarts", "broken"), [(1, 0), (2, 0), (3, 4)])
@pytest.mark.parametrize("search", ["bracket", "exhaustive"])
def test_restarts_are_tried_in_turn(restarts, broken, search):
    def on_the_third(problem, x):
        third = (problem.draws.restart == 2)[:, None, None, None]
        return torch.where(third, brightest(problem, x), x)

    x, y = grey()
    settings = CellConfig("Linf", (Epsilon.parse(0.3),), search=search)
    network = Network(Step(), torch.device("cpu"), 16)
    field = AttackInputs(network, TensorImages(x), y, torch.arange(4), settings, 16, Silent())
    outcomes = CascadeRunner(field).run([AttackStage(Scripted(on_the_third), restarts)])
    assert outcomes.broken.sum() == broken
    assert outcomes.queries[:, 0].tolist() == [restarts] * 4


def test_restarts_draw_other_numbers(digits):
    attack = {"name": "pgd", "steps": 1, "step_size": 0.2}
    once = on_digits(digits, attack, count=200, epsilons=[0.2])
    often = on_digits(digits, {**attack, "restarts": 10}, count=200, epsilons=[0.2])
    broken = [one.records["broken"].map(lambda flags: flags[0]) for one in (once, often)]
    assert not (broken[0] & ~broken[1]).any()
    assert broken[1].sum() > broken[0].sum()


# -------------------------------------------------------------------------------------- cascades


@pytest.mark.parametrize("search", ["bracket", "exhaustive"])
def test_a_cascade_is_the_worst_of_its_attacks(search):
    def only(parity):
        def move(problem, x):
            chosen = (problem.draws.example % 2 == parity)[:, None, None, None]
            return torch.where(chosen, brightest(problem, x), x)

        return Scripted(move)

    x, y = grey(6)
    x[5] = 0.1  # out of reach of both
    result = evaluate(Step(), x, y, [only(0), only(1)], epsilons=[0.1, 0.3, 0.4], search=search)
    assert result.records["broken"].tolist() == [[False, True, True]] * 5 + [[False] * 3]
    alone = evaluate(Step(), x, y, only(0), epsilons=[0.1, 0.3, 0.4], search=search)
    assert alone.curve["robust_accuracy"].tolist() == pytest.approx([1, 0.5, 0.5])


def test_later_attacks_only_try_just_below_what_is_broken():
    tried = []

    def note(problem, x):
        tried.extend(zip(problem.draws.example.tolist(), problem.epsilon.tolist(), strict=True))
        return x

    x, y = grey(2)
    x[1] = 0.1
    attacks = [Scripted(brightest), Scripted(note, steps=2)]
    evaluate(Step(), x, y, attacks, epsilons=[0.05, 0.1, 0.3, 0.4])
    assert set(tried) == {(0, 0.1), (1, 0.4)}


def test_a_boundary_search_takes_single_long_steps_and_full_budget_attempts_all_of_them():
    """Image 0 is within reach of two epsilons, image 1 of none."""
    taken = []

    def note(problem, x):
        problem.victim.labels(x)
        ball = problem.ball
        step_multiplier = (ball.radius.flatten() / ball.epsilon).round(decimals=3)
        taken.extend(zip(problem.draws.example.tolist(), step_multiplier.tolist(), strict=True))
        return brightest(problem, x)

    x, y = grey(2)
    x[1] = 0.1
    found = evaluate(Step(), x, y, Scripted(note, steps=20), epsilons=[0.1, 0.25, 0.3]).records
    assert found["broken"].tolist() == [[False, True, True], [False] * 3]
    assert (taken.count((0, 1)), taken.count((1, 1))) == (20, 20)
    # as long as in an attack of four steps, or a half, a quarter, ... of that after a failure
    assert (
        {5.0}
        <= {step_multiplier for _, step_multiplier in taken} - {1.0}
        <= {5.0, 2.5, 1.25, 0.625}
    )
    asked = [
        [step_multiplier for one, step_multiplier in taken if one == example] for example in (0, 1)
    ]
    walked = [len(paces) - paces.count(1.0) for paces in asked]
    assert max(walked) <= 13
    # each step asks once, and the last iterate of a full-budget attempt is judged once more
    assert found["forward"].tolist() == [len(paces) + 1 for paces in asked]


# ---------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize("search", ["bracket", "exhaustive"])
@pytest.mark.parametrize("budget", [1, 7, 40])
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "pgd-finite-differences"])
def test_no_attack_asks_more_than_its_budget(digits, attack, search, budget):
    result = on_digits(
        digits,
        [attack, {"name": "pgd", "steps": 3, "restarts": 2}],
        count=20,
        epsilons=[0.02, 0.1],
        search=search,
        query_budget=budget,
    )
    most = budget * (2 if search == "exhaustive" else 1)
    queries = result.records["queries"][result.records["under_attack"]]
    assert 0 < queries.max() <= most
    assert (result.records["forward"] == result.records["queries"]).all()
    if budget == 1:
        assert queries.min() == most
    assert not any(flag.startswith("not-reproduced") for flag in result.flags)


def test_a_budget_goes_to_the_largest_epsilon_first():
    x, y = grey(1)
    result = evaluate(Step(), x, y, Scripted(brightest), epsilons=[0.1, 0.3, 0.4], query_budget=1)
    assert result.records["broken"][0] == [False, False, True]
    assert result.records["attacked"][0] == [False, False, True]


# -------------------------------------------------------------------------------- warm starts


def test_tries_start_from_the_last_iterate_inside_the_new_ball(digits):
    seen = []

    def note(problem, x):
        if (problem.step == 0).any():
            new = problem.step == 0
            seen.append((problem.warm[new], problem.ball.contains(problem.start_points)[new]))
        return brightest(problem, x)

    on_digits(digits, Scripted(note, steps=2), epsilons=[0.1, 0.2, 0.3, 0.4])
    warm, inside = (torch.cat(column) for column in zip(*seen, strict=True))
    assert inside.all()
    assert warm.any()
    assert (~warm).sum() >= 70  # each example's first attempt starts at its clean image


class Band(nn.Module):
    """A class at means around 0.75 alone: what fools it at 0.25 steps past that region at 0.4."""

    def forward(self, x):
        mean = x.flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([(mean - 0.75).abs() - 0.05, torch.zeros_like(mean)], dim=1)


BAND = [0.25, 0.4, 0.45]
LEAPS = [
    Scripted(brightest, steps=1),
    Whole(lambda p: brightest(p, p.x), monotone=False),
    PGD(steps=1, step_size=1.0, random_start=False),
]


def test_failures_of_long_steps_tell_nothing_of_smaller_epsilons():
    x, y = grey(1)
    result = evaluate(Band(), x, y, Scripted(brightest, steps=2, monotone=False), epsilons=BAND)
    assert result.records["broken"][0] == [True, True, True]
    assert result.records["attacked"][0] == [True, False, False]


@pytest.mark.parametrize("attack", LEAPS)
def test_a_single_step_is_an_attack_of_its_own_at_each_epsilon(attack):
    x, y = grey(2)
    result = evaluate(Band(), x, y, attack, epsilons=BAND)
    exhaustive = evaluate(Band(), x, y, attack, epsilons=BAND, search="exhaustive")
    assert result.records["broken"].tolist() == [[True, False, False]] * 2
    assert result.curve["robust_accuracy"].tolist() == [0.0, 1.0, 1.0]  # it goes up again
    pd.testing.assert_frame_equal(result.records, exhaustive.records)
    assert (result.records["smallest_epsilon"] == "0.25").all()
    assert result.records["attacked"].map(all).all()
    assert torch.equal(result.adversarials(0.4), x)


@pytest.mark.parametrize("attack", LEAPS)
def test_in_a_cascade_what_a_single_step_breaks_is_broken_at_all_larger_epsilons(attack):
    x, y = grey(1)
    for attacks in ([attack, PGD(steps=2)], [PGD(steps=2), attack]):
        result = evaluate(Band(), x, y, attacks, epsilons=BAND)
        assert result.records["broken"][0] == [True, True, True]


def test_single_steps_share_the_budget_of_a_curve_from_the_largest_epsilon_down():
    x, y = grey(1)
    for budget, attacked in ((1, [2]), (2, [1, 2]), (3, [0, 1, 2])):
        result = evaluate(
            Band(), x, y, Scripted(brightest, steps=1), epsilons=BAND, query_budget=budget
        )
        assert result.records["queries"][0] == budget
        tried = [at for at, one in enumerate(result.records["attacked"][0]) if one]
        assert tried == attacked
        assert (f"query-budget-exhausted:{1}" in result.flags) == (budget < 3)


# ------------------------------------------------------------------------------------- no progress


class Flat(nn.Module):
    """A model that nothing changes and nothing can be learnt from."""

    def forward(self, x):
        rows = x.flatten(1).sum(dim=1, keepdim=True) * 0.0
        return torch.cat([rows, rows + 1.0], dim=1)


@pytest.mark.parametrize(
    "attack",
    [PGD(steps=3, random_start=False), PGD(steps=1, random_start=False),
     {"name": "zoo", "steps": 3, "coordinates": 2}, {"name": "simba", "steps": 3}],
)  # fmt: skip
def test_an_attack_that_ends_where_it_began_is_flagged(attack):
    x, y = grey(3)
    y = torch.ones_like(y)
    settings = {"norm": "L2", "epsilons": [0.1, 0.2]}
    assert "no-progress:3" in evaluate(Flat(), x, y, attack, **settings).flags
    if isinstance(attack, PGD):  # it has moved away
        both = [attack, PGD(steps=2)]
        flags = evaluate(Flat(), x, y, both, **settings).flags
        assert not any("no-progress" in one for one in flags)


@pytest.mark.parametrize(
    "attack",
    ["pgd", "square", "fab", "rays", "hop-skip-jump", "ddn", "fmn", "grey",
     {"name": "zoo", "steps": 20}, {"name": "simba", "steps": 40}],
)  # fmt: skip
def test_attacks_that_moved_or_keep_the_clean_image_until_they_succeed_are_not(linear, attack):
    norm = "Linf" if attack == "rays" else "L2"
    settings = {"norm": norm, "epsilons": [1e-4], "query_budget": None}
    x, y = linear.images[:6], linear.labels[:6]
    steps = {} if attack not in ("square", "rays", "hop-skip-jump") else {"steps": 5}
    spec = {"name": attack, **steps} if isinstance(attack, str) else attack
    flags = evaluate(linear.module, x, y, spec, **settings).flags
    assert not any("no-progress" in one for one in flags)


def test_no_progress_is_not_said_of_examples_whose_budget_ended(digits):
    result = evaluate(Flat(), *grey(2)[:1], torch.ones(2, dtype=torch.int64), "simba",
                      norm="L2", epsilons=[0.1], query_budget=1)  # fmt: skip
    assert not any("no-progress" in one for one in result.flags)


# ----------------------------------------------------------------------------------- whole attacks


def test_an_attack_in_one_piece_is_judged_by_its_answer():
    x, y = grey(3)
    x[1] = 0.1
    result = evaluate(Step(), x, y, Whole(lambda p: brightest(p, p.x)), epsilons=[0.1, 0.3])
    assert result.records["broken"].tolist() == [[False, True], [False, False], [False, True]]
    assert torch.allclose(result.adversarials(0.3)[0], torch.tensor(0.8))


def test_an_attack_in_one_piece_is_held_to_its_access():
    x, y = grey()
    with pytest.raises(AccessDenied, match="a victim with decision access for scores"):
        evaluate(Step(), x, y, Whole(lambda p: p.x + p.victim.scores(p.x).sum()), epsilons=[0.1])


# ------------------------------------------------------------------------------ attacks gone wrong


@pytest.mark.parametrize("make", [Scripted, Whole])
def test_a_crash_is_never_robustness(make):
    def crash(*_):
        raise ZeroDivisionError("division by zero")

    x, y = grey()
    with pytest.raises(ZeroDivisionError):
        evaluate(Step(), x, y, make(crash), epsilons=[0.1])


def test_nan_is_never_robustness():
    x, y = grey()
    with pytest.raises(CellError, match="not finite"):
        evaluate(Step(), x, y, Scripted(lambda p, x: x * math.nan), epsilons=[0.1])


@pytest.mark.parametrize("answer", [lambda p, x: x[:1], lambda p, x: None])
def test_an_iterate_that_is_no_batch_of_images_is_refused(answer):
    x, y = grey()
    with pytest.raises(CellError, match=r"must hold x_adv of shape \(4, 1, 2, 2\)"):
        evaluate(Step(), x, y, Scripted(answer), epsilons=[0.1])


def test_progress_ends_at_the_total(digits):
    seen = []

    class Watch:
        def update(self, done, total, note=""):
            seen.append((done, total))

    x, y = grey(30)
    settings = CellConfig("Linf", tuple(Epsilon.parse(one) for one in (0.1, 0.3)))
    network = Network(Step(), torch.device("cpu"), 16)
    field = AttackInputs(network, TensorImages(x), y, torch.arange(30), settings, 16, Watch())
    CascadeRunner(field).run([AttackStage(Scripted(brightest))])
    assert seen[-1] == (30, 30)
    assert seen == sorted(seen)


def test_nobody_to_attack_is_no_trouble(digits):
    wrong = (digits.module(digits.images[:5]).argmax(1) + 1) % 10
    result = evaluate(digits.module, digits.images[:5], wrong, "pgd", epsilons=[0.1])
    assert result.curve["robust_accuracy"].tolist() == [0.0]
    assert not result.records["under_attack"].any()
