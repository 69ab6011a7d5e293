"""NES, SPSA and RGF beside what theory says of them."""

import math
from dataclasses import replace

import pytest
import torch
from builders import Scores, first_logit, problem_at
from torch import nn

from quintain.attacks.gradients import score_differences
from quintain.attacks.gradients.nes import NES
from quintain.attacks.gradients.rgf import RGF
from quintain.attacks.gradients.spsa import SPSA
from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter

D = 48
GRADIENT = torch.randn(D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SOURCES = [NES(samples=16, sigma=0.01), SPSA(samples=16, delta=0.01)]
sources = pytest.mark.parametrize("source", SOURCES, ids=["nes", "spsa"])


def straight(x):
    """(N, 3, 4, 4) -> (N, 1) float64, with GRADIENT everywhere."""
    return (x.double().flatten(1) @ GRADIENT)[:, None]


def bowl(x):
    return (x.double().flatten(1) ** 2 @ GRADIENT)[:, None]


def estimate(source, x, *, function=straight, step=0, examples=None):
    """The estimates (B, D) in float64, and the victim that was asked."""
    at = problem_at(x, Scores(function, len(x)), epsilon=1.0, step=step)
    if examples is not None:
        at.draws = replace(at.draws, example=examples)
    return source(at, x, first_logit).double().flatten(1), at.victim


def middle(count):
    return torch.full((count, 3, 4, 4), 0.5)


@sources
def test_it_asks_exactly_its_samples_in_mirrored_pairs(source):
    _, victim = estimate(source, middle(3))
    assert victim.asked.tolist() == [16] * 3
    pairs = torch.cat(victim.points).reshape(-1, 2, D)
    assert torch.allclose(pairs.mean(dim=1), torch.full((24, D), 0.5), atol=1e-6)
    assert len(pairs[:, 0].unique(dim=0)) == 24


@sources
def test_the_mean_approaches_the_gradient_with_the_variance_of_theory(source):
    """With m pairs on a straight loss the variance is (|g|^2 + (k - 2) g_i^2) / m.

    k is the fourth moment of a direction's coordinate: 3 for normals, 1 for signs.
    """
    found, _ = estimate(source, middle(2000))
    kurtosis = 3.0 if isinstance(source, NES) else 1.0
    expected = (GRADIENT.square().sum() + GRADIENT.square() * (kurtosis - 2.0)) / 8
    score = (found.mean(dim=0) - GRADIENT) / (expected / len(found)).sqrt()
    assert score.abs().max() < 4.0
    assert score.square().mean().item() == pytest.approx(1.0, abs=0.8)
    total = found.var(dim=0).sum() / expected.sum()
    assert total.item() == pytest.approx(1.0, abs=0.05)


@sources
def test_on_a_quadratic_loss_antithetic_pairs_leave_no_bias(source):
    x = middle(2000) + 0.1
    found, _ = estimate(source, x, function=bowl)
    exact = 2.0 * 0.6 * GRADIENT
    error = (found.mean(dim=0) - exact) / (exact.norm() / math.sqrt(8 * len(x)))
    assert error.abs().max() < 4.2


@pytest.mark.parametrize("source", [NES(16, 0.05), SPSA(16, 0.05)], ids=["nes", "spsa"])
def test_at_the_border_probes_are_images_and_the_mean_is_still_the_gradient(source):
    at = torch.tensor([0.0, 1.0, 0.01, 0.97, 0.5, 0.06]).repeat(D // 6)
    x = at.reshape(1, 3, 4, 4).repeat(2000, 1, 1, 1)
    found, victim = estimate(source, x)
    probes = torch.cat(victim.points)
    assert probes.min() == 0.0
    assert probes.max() == 1.0
    error = (found.mean(dim=0) - GRADIENT) / (found.std(dim=0) / math.sqrt(len(x)))
    assert error.abs().max() < 4.0


@pytest.mark.parametrize("kind", [NES, SPSA])
def test_the_cosine_to_the_gradient_grows_as_theory_says(kind):
    for samples in (8, 32, 128, 512):
        found, _ = estimate(kind(samples, 0.01), middle(200))
        cosine = torch.cosine_similarity(found, GRADIENT[None]).mean().item()
        pairs = samples / 2
        assert cosine == pytest.approx(math.sqrt(pairs / (pairs + D)), rel=0.1)


@sources
def test_an_example_gets_the_same_numbers_in_any_batch(source, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(67, 3, 4, 4, generator=generator)

    def squared(images):  # exact for any batch, unlike a matrix product
        return (images.double().flatten(1) ** 2 * GRADIENT).sum(1, keepdim=True)

    whole, _ = estimate(source, x, function=squared)
    for some in (torch.tensor([5]), torch.tensor([66, 0, 31])):
        part, _ = estimate(source, x[some], function=squared, examples=some)
        assert torch.equal(part, whole[some])
    monkeypatch.setattr(score_differences, "DRAWN_AT_ONCE", D)
    drawn_singly, _ = estimate(source, x, function=squared)
    monkeypatch.setattr(score_differences, "PROBES_AT_ONCE", 1)
    singly, victim = estimate(source, x, function=squared)
    assert torch.equal(singly, drawn_singly)
    assert len(victim.points) == 8


@sources
def test_steps_draw_other_directions(source):
    first, again, second = (estimate(source, middle(2), step=step)[0] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@sources
def test_a_failure_with_it_tells_nothing_of_smaller_epsilons(source):
    assert not source.monotone


@pytest.mark.parametrize(
    ("kind", "given"),
    [(kind, {"samples": bad}) for kind in (NES, SPSA) for bad in (0, -2, 7)]
    + [(NES, {"sigma": bad}) for bad in (0.0, 0.6, float("nan"))]
    + [(SPSA, {"delta": bad}) for bad in (0.0, 0.6, float("nan"))]
    + [(RGF, {"samples": 1}), (RGF, {"sigma": 0.0})],
)
def test_parameters_that_make_no_gradient_are_refused(kind, given):
    (name,) = given
    with pytest.raises(BadParameter, match=name):
        kind(**given)


# -------------------------------------------------------------------------------------- one-sided


def test_rgf_asks_about_the_point_itself_and_a_sphere_around_it():
    _, victim = estimate(RGF(samples=9, sigma=0.01), middle(3))
    assert victim.asked.tolist() == [9] * 3
    here, around = victim.points
    assert torch.equal(here, middle(3))
    length = (around.double() - 0.5).flatten(1).norm(dim=1)
    assert length.numpy() == pytest.approx(0.01 * math.sqrt(D), rel=1e-4)


@pytest.mark.parametrize("border", [False, True])
def test_the_mean_of_rgf_is_the_gradient_over_d(border):
    at = torch.tensor([0.0, 1.0, 0.5, 0.5] if border else [0.5]).repeat(D // (4 if border else 1))
    x = at.reshape(1, 3, 4, 4).repeat(2000, 1, 1, 1)
    found, victim = estimate(RGF(samples=17, sigma=0.01), x)
    assert torch.cat(victim.points).min() >= 0.0
    assert torch.cat(victim.points).max() <= 1.0
    error = (found.mean(dim=0) - GRADIENT / D) / (found.std(dim=0) / math.sqrt(len(x)))
    assert error.abs().max() < 4.2


def test_the_cosine_of_rgf_grows_as_theory_says():
    for samples in (9, 33, 129):
        found, _ = estimate(RGF(samples, 0.01), middle(200))
        cosine = torch.cosine_similarity(found, GRADIENT[None]).mean().item()
        directions = samples - 1
        assert cosine == pytest.approx(math.sqrt(directions / (directions + D)), rel=0.1)


# ------------------------------------------------------------------------------- in an evaluation


@pytest.mark.parametrize("name", ["nes", "spsa"])
@pytest.mark.parametrize("budget", [1, 16, 50, 51, 33])
def test_a_budget_that_ends_in_a_gradient_is_spent_to_the_last_query(name, budget):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(D, 2))
    with torch.no_grad():
        module[1].bias[0] = 100.0  # nothing breaks it
    attack = {"name": f"pgd-{name}", "steps": 9, "gradient": {"name": name, "samples": 16}}
    found = evaluate(module, middle(5), torch.zeros(5).long(), attack, query_budget=budget)
    assert found.records["queries"].tolist() == [budget] * 5
    assert found.curve["robust_accuracy"].tolist() == [1.0]


@pytest.mark.parametrize("name", ["nes", "spsa"])
def test_it_breaks_a_network_and_counts_every_query(digits, name):
    x, y = digits.images[:40], digits.labels[:40]
    attack = {"name": f"pgd-{name}", "steps": 20, "gradient": {"name": name, "samples": 64}}
    result = evaluate(digits.module, x, y, attack, epsilons=[0.3], early_leaving=False)
    assert result.curve["robust_accuracy"].item() < 0.2
    under = result.records["under_attack"]
    assert set(result.records["queries"][under]) == {20 * 65}  # and each iterate
    assert (result.records["backward"] == 0).all()
