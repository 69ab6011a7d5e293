"""Certify and Predict against closed forms, SciPy, and their promised failure rate."""

import numpy as np
import pytest
import torch
from builders import draws, plane, random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm
from torch import nn

from quintain.bench.api.defense import ABSTAIN, Certifier
from quintain.bench.api.rng import Draws, noise
from quintain.defenses.certified.smoothed_classifier import Smoothed, lower_bound, surely_first

SIGMA = 0.3


@pytest.fixture
def halves():
    """Images, 1x2x2, on both sides of a plane, and their signed distances from it.

    A linear network smoothed by Gaussian noise is the same linear network, and certain to be right
    within the distance of the plane: pA = Phi(distance / sigma).
    """
    weight, bias = [1.0, -2.0, 0.5, 1.5], -0.5
    x = random_images(40, 1, 2, 2)
    score = x.flatten(1).double() @ torch.tensor(weight).double() + bias
    return plane(weight, bias), x, (score / np.linalg.norm(weight)).numpy()


def test_the_certified_radius_of_a_linear_network_is_nearly_its_distance(halves):
    network, x, distance = halves
    n = 20_000
    found = Smoothed(network, SIGMA, 2000, n, 0.001).certify(x, draws(40), 512)
    sure = np.abs(distance) > 0.05
    assert sure.sum() > 25
    assert (found.prediction.numpy()[sure] == (distance > 0)[sure]).all()
    radius = found.radius.numpy()
    assert (radius <= np.abs(distance)).all()  # 40 chances of 0.001 against it
    probability = norm.cdf(np.abs(distance) / SIGMA)
    spread = 3.0 * np.sqrt(probability * (1 - probability) / n)
    likely = lower_bound(np.floor(n * (probability - spread)).astype(int), n, 0.001)
    assert (radius >= np.maximum(0.0, SIGMA * norm.ppf(likely)))[sure].all()
    assert (radius > 0.85 * np.abs(distance))[np.abs(distance) > 0.15].all()
    assert (np.abs(distance) < 2.5 * SIGMA).all()  # else n, not the plane, would limit the radius


def test_a_radius_is_wrong_as_often_as_it_may_be(halves):
    """The same image 2000 times: the bound may fail in a tenth of them, and nearly does."""
    network, x, distance = halves
    at = int(np.argmin(np.abs(np.abs(distance) - 0.2)))
    module = Smoothed(network, SIGMA, 10, 100, 0.1)
    many = x[at : at + 1].expand(2000, -1, -1, -1)
    wrong = (module.certify(many, draws(2000), 1000).radius.numpy() > abs(distance[at])).mean()
    probability = norm.cdf(abs(distance[at]) / SIGMA)
    hits = np.arange(101)
    exact = binom.pmf(hits, 100, probability)[lower_bound(hits, 100, 0.1) > probability].sum()
    assert exact <= 0.1
    assert wrong == pytest.approx(exact, abs=4 * np.sqrt(0.1 * 0.9 / 2000))
    assert wrong > 0


def test_on_the_plane_it_abstains():
    network = plane([1.0, 1.0, 1.0, 1.0], -2.0)
    x = torch.full((50, 1, 2, 2), 0.5)
    module = Smoothed(network, SIGMA, 20, 300, 0.001)
    found = module.certify(x, draws(50), 512)
    assert (found.prediction == ABSTAIN).sum() >= 49
    assert (found.radius[found.prediction == ABSTAIN] == 0).all()
    assert (module.predict(x, draws(50), 512) == ABSTAIN).sum() >= 49


def test_predict_agrees_with_the_smoothed_classifier(halves):
    network, x, distance = halves
    answer = Smoothed(network, SIGMA, 20, 2000, 0.001).predict(x, draws(40), 512).numpy()
    clear = np.abs(distance) > 0.1
    assert clear.sum() > 15
    assert (answer[clear] == (distance > 0)[clear]).all()
    assert set(answer[~clear]) <= {ABSTAIN, 0, 1}


@given(st.integers(1, 400), st.data(), st.sampled_from([0.001, 0.01, 0.05]))
@settings(max_examples=60, deadline=None)
def test_the_lower_bound_is_clopper_and_pearsons(n, data, alpha):
    hits = data.draw(st.integers(0, n))
    wanted = binomtest(hits, n).proportion_ci(1 - 2 * alpha, method="exact").low
    assert lower_bound(np.array([hits]), n, alpha)[0] == pytest.approx(wanted, abs=1e-12)


def test_the_lower_bound_at_its_ends():
    ends = lower_bound(np.array([0, 1000]), 1000, 0.001)
    assert ends.tolist() == pytest.approx([0.0, 0.001 ** (1 / 1000)])


@given(st.lists(st.integers(0, 60), min_size=2, max_size=5), st.sampled_from([0.001, 0.05, 0.3]))
@settings(max_examples=80, deadline=None)
def test_a_prediction_needs_a_significant_lead(counts, alpha):
    first, second = sorted(counts, reverse=True)[:2]
    answer = surely_first(np.array([counts]), alpha)[0]
    total = first + second
    chance = binomtest(first, total).pvalue if total else 1.0
    assert answer == (counts.index(first) if chance <= alpha else ABSTAIN)


def test_the_answers_depend_on_seed_and_example_alone(halves):
    network, x, _ = halves
    module = Smoothed(network, SIGMA, 20, 100, 0.001)
    whole = module.certify(x, draws(40), 4096)
    small = module.certify(x, draws(40), 16)
    assert torch.equal(whole.radius, small.radius)
    assert torch.equal(whole.prediction, small.prediction)
    part = module.certify(x[7:20], draws(range(7, 20)), 64)
    assert torch.equal(part.radius, whole.radius[7:20])
    assert not torch.equal(module.certify(x, draws(40, seed=1), 4096).radius, whole.radius)
    same = module.predict(x, draws(40), 16)
    assert torch.equal(module.predict(x, draws(40), 999), same)


def test_batches_are_full_and_of_one_size(halves):
    _, x, _ = halves
    sizes = []

    class Watching(nn.Module):
        def forward(self, at):
            sizes.append(len(at))
            return torch.cat([at.flatten(1)[:, :1], 1 - at.flatten(1)[:, :1]], 1)

    Smoothed(Watching(), SIGMA, 10, 90, 0.001).certify(x[:5], draws(5), 128)
    assert sizes == [50, 113, 113, 112, 112]


def test_the_noise_is_gaussian_and_not_clipped():
    seen = []

    class Seen(nn.Module):
        def forward(self, at):
            seen.append(at)
            return at.flatten(1)[:, :2]

    module = Smoothed(Seen(), SIGMA, 1, 2, 0.1)
    module(torch.zeros(500, 1, 4, 4))
    noise = seen[0].flatten()
    assert noise.min() < 0
    assert noise.std().item() == pytest.approx(SIGMA, rel=0.05)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.02)
    assert isinstance(module, Certifier)
    assert module.stochastic


@pytest.mark.peers
def test_radii_are_those_of_the_adversarial_robustness_toolbox(halves):
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    network, x, distance = halves
    theirs = PyTorchRandomizedSmoothing(
        network, nn.CrossEntropyLoss(), (1, 2, 2), 2, clip_values=(0.0, 1.0),
        sample_size=100, scale=SIGMA, alpha=0.001,
    )  # fmt: skip
    np.random.seed(0)
    prediction, radius = theirs.certify(x.numpy(), n=5000)
    ours = Smoothed(network, SIGMA, 100, 5000, 0.001).certify(x, draws(40), 512)
    clear = np.abs(distance) > 0.05
    assert (prediction[clear] == ours.prediction.numpy()[clear]).all()
    np.testing.assert_allclose(radius[clear], ours.radius.numpy()[clear], atol=0.05 * SIGMA + 0.02)
    assert abs((radius - ours.radius.numpy())[clear].mean()) < 0.01


@pytest.mark.peers
@pytest.mark.parametrize("hits", [0, 1, 77, 99, 100])
def test_the_lower_bound_is_that_of_statsmodels(hits):
    from statsmodels.stats.proportion import proportion_confint

    wanted = proportion_confint(hits, 100, alpha=0.002, method="beta")[0]
    found = lower_bound(np.array([hits]), 100, 0.001)[0]
    assert found == pytest.approx(np.nan_to_num(wanted))


def test_layers_within_draw_again_for_each_stream():
    """Else the class would be chosen by draws that are counted again, and alpha would not hold."""
    seen = []

    class Random(nn.Module):
        stochastic = True

        def forward(self, x):
            drawn = noise(x)
            seen.append({*zip(drawn.restart.tolist(), drawn.step.tolist(), strict=True)})
            heads = drawn.uniform((1,), "coin") < 0.5
            score = torch.where(heads, 1.0, -1.0) + 0 * x.flatten(1)[:, :1]
            return torch.cat([-score, score], dim=1)

    x, rows = torch.zeros(2000, 1, 2, 2), torch.arange(2000)
    module = Smoothed(Random(), 0.25, 50, 100, 0.05)
    found = module.certify(x, Draws(0, rows, 0 * rows, 0 * rows), 4096)
    select = set().union(*seen[: -(-2000 * 50 // 4096)])
    estimate = set().union(*seen[-(-2000 * 50 // 4096) :])
    assert len(select) == 50
    assert len(estimate) == 100
    assert not select & estimate
    assert (found.prediction != ABSTAIN).double().mean() < 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5
