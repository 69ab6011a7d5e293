"""Certificates in `evaluate`: what is shown, what is refused, what contradicts them."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.defense import ABSTAIN, Certificates
from quintain.bench.api.errors import BadData, CellError
from quintain.bench.api.rng import noise
from quintain.bench.api.threat import NORMS
from quintain.bench.engine.certify import inscribed

PLANE = [1.0, -2.0, 0.5, 1.5]


class Plane(nn.Module):
    """Two classes apart by a plane, with exact certificates, times `boast`."""

    certifies = "L2"

    def __init__(self, boast=1.0, norm="L2"):
        super().__init__()
        self.boast, self.certifies = boast, norm
        self.layer = nn.Linear(4, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.0] * 4, PLANE]))
            self.layer.bias.copy_(torch.tensor([0.0, -0.5]))

    def forward(self, x):
        return self.layer(x.flatten(1))

    def certify(self, x, draws, batch_size):
        score = self(x).diff(dim=1)[:, 0].double()
        dual = {"Linf": 1, "L2": 2, "L1": np.inf}[self.certifies]
        length = np.linalg.norm(PLANE, dual)
        return Certificates((score > 0).long(), self.boast * (1 - 1e-5) * score.abs() / length)

    def predict(self, x, draws, batch_size):
        return self(x).argmax(1)


def images(count=40):
    x = 0.25 + 0.5 * torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return x, Plane()(x).argmax(1)


EPSILONS = {"Linf": [0.01, 0.03, 0.05, 0.1], "L2": [0.02, 0.05, 0.1, 0.2], "L1": [0.05, 0.1, 0.2]}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("own", NORMS)
def test_certified_is_below_empirical_in_every_norm(own, norm):
    x, y = images()
    y[:4] = 1 - y[:4]
    module = Plane(norm=own)
    result = evaluate(module, x, y, PGD(steps=20), norm=norm, epsilons=EPSILONS[norm])
    proved = result.certified_accuracy
    assert (proved["robust_accuracy"] <= result.curve["robust_accuracy"]).all()
    assert (proved["clean_accuracy"] == 0.9).all()
    assert proved["attack_success_rate"].isna().all()
    assert result.flags == ()
    radius = result.certificates["radius"].to_numpy()
    with torch.no_grad():
        score = np.abs(module(x).diff(dim=1)[:, 0].double().numpy())
    exact = score / np.linalg.norm(PLANE, {"Linf": 1, "L2": 2, "L1": np.inf}[norm])
    assert (radius <= exact).all()
    right = (result.certificates["prediction"] == result.certificates["label"]).to_numpy()
    for epsilon, accuracy in zip(EPSILONS[norm], proved["robust_accuracy"], strict=True):
        assert accuracy == (right & (radius >= epsilon)).mean()
    if own == norm:  # proved exactly, so that nothing lies between proof and attack
        np.testing.assert_allclose(radius, exact, rtol=1e-4)
        assert 0 < proved["robust_accuracy"].iloc[-1] < 0.9


def test_a_radius_that_is_too_large_is_found_out():
    """The negative control: half as long again as it is, and only where it tells."""
    x, y = images()
    for boast, norm in ((1.5, "L2"), (1.02, "L2"), (1.5, "Linf")):
        settings = {"norm": "L2", "epsilons": [0.05, 0.1, 0.2, 0.4]}
        result = evaluate(Plane(boast, norm), x, y, "ddn", **settings)
        nearest = result.records["distance"].to_numpy()
        noted = result.records["contradicts"].to_numpy()
        own = result.certified["proved_radius"].to_numpy()
        assert result.flags == (f"contradicted-certificates:{noted.sum()}",)
        assert noted.sum() > 20
        if norm == "L2":
            assert (noted == (nearest < own)).all()
    assert evaluate(Plane(), x, y, "ddn", **settings).flags == ()


@dataclass(frozen=True)
class OnePixel:
    """Moves the pixel of weight -2 alone, just over the plane."""

    access: str = "white-box"

    def run(self, problem):
        score = problem.victim.scores(problem.x).diff(dim=1)[:, 0]
        x_adv = problem.x.clone()
        x_adv[:, 0, 0, 1] += 1.001 * score / 2
        return x_adv


def test_an_adversarial_example_is_measured_in_the_certifiers_own_norm():
    """In Linf the proof, and so its refutation, would reach half as far as in its own norm."""
    x, y = images()
    result = evaluate(Plane(1.5), x, y, OnePixel(), norm="Linf", epsilons=[0.1, 0.2, 0.4])
    found = np.isfinite(result.records["distance"].to_numpy())
    assert found.sum() > 20
    assert (result.records["contradicts"].to_numpy() == found).all()
    inside = result.records["distance"].to_numpy() < result.certificates["radius"].to_numpy()
    assert not inside.any()
    assert evaluate(Plane(), x, y, OnePixel(), norm="Linf", epsilons=[0.4]).flags == ()


def test_certificates_of_the_wrong_class_contradict_nothing():
    x, y = images()
    result = evaluate(Plane(9.0), x, 1 - y, PGD(steps=5), norm="L2", epsilons=[0.1])
    assert result.flags == ()
    assert (result.certified_accuracy["clean_accuracy"] == 0).all()


def test_an_image_that_the_network_sees_otherwise_than_certified_contradicts():
    class Liar(Plane):
        def certify(self, x, draws, batch_size):
            found = super().certify(x, draws, batch_size)
            return Certificates(1 - found.prediction, found.radius)

    x, y = images()
    result = evaluate(Liar(), x, 1 - y, PGD(steps=5), norm="L2", epsilons=[0.1])
    assert result.flags == ("contradicted-certificates:40",)


class Lucky(Plane):
    """Draws say class 1 with probability 0.45, wherever; so do few of 25 votes, more or less."""

    stochastic = True

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, []

    def forward(self, x):
        heads = noise(x).uniform((1,), "coin") < 0.45
        score = torch.where(heads, 1.0, -1.0) + 0 * x.flatten(1)[:, :1]
        return torch.cat([-score, score], dim=1)

    def certify(self, x, draws, batch_size):
        self.certified_with = draws
        return Certificates(torch.zeros(len(x), dtype=torch.int64), torch.full((len(x),), 0.5))

    def predict(self, x, draws, batch_size):
        self.asked.append(draws)
        return torch.full((len(x),), self.answer)


@pytest.mark.parametrize(("answer", "count"), [(0, 0), (ABSTAIN, 0), (1, None)])
def test_a_lucky_vote_is_asked_again_with_new_draws(answer, count):
    x, y = torch.rand(60, 1, 2, 2), torch.zeros(60, dtype=torch.int64)
    module = Lucky(answer)
    result = evaluate(module, x, y, PGD(steps=3), norm="L2", epsilons=[0.1], seed=5)
    missed = int((result.records["clean_prediction"] != 0).sum())
    assert missed > 0  # by luck: at distance 0
    asked = torch.cat([draws.example for draws in module.asked])
    assert len(asked) >= missed
    assert all((draws.restart != module.certified_with.restart[0]).all() for draws in module.asked)
    flags = [one for one in result.flags if one.startswith("contradicted")]
    assert flags == ([f"contradicted-certificates:{len(asked.unique())}"] if count is None else [])


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (lambda n: (torch.zeros(n - 1).long(), torch.zeros(n)), "must have shape"),
        (lambda n: (torch.full((n,), 2), torch.zeros(n)), "not one of 2"),
        (lambda n: (torch.full((n,), -2), torch.zeros(n)), "not one of 2"),
        (lambda n: (torch.zeros(n).long(), torch.full((n,), -1.0)), "negative or not a number"),
        (lambda n: (torch.zeros(n).long(), torch.full((n,), np.nan)), "negative or not a number"),
    ],
)
def test_what_cannot_be_certified_is_refused(found, says):
    class Odd(Plane):
        def certify(self, x, draws, batch_size):
            return Certificates(*found(len(x)))

    x, y = images()
    with pytest.raises(CellError, match=says):
        evaluate(Odd(), x, y, PGD(steps=1), epsilons=[0.1])


def test_an_unknown_norm_is_refused():
    with pytest.raises(CellError, match="'L3' is not one of"):
        evaluate(Plane(norm="L3"), *images(), PGD(steps=1), epsilons=[0.1])


def test_who_abstains_proves_nothing():
    class Silent(Plane):
        def certify(self, x, draws, batch_size):
            return Certificates(torch.full((len(x),), ABSTAIN), torch.full((len(x),), 9.0))

    x, y = images()
    result = evaluate(Silent(), x, y, PGD(steps=5), norm="L2", epsilons=[0.1, 0.3])
    assert (result.certificates["radius"] == 0).all()
    assert (result.certified_accuracy[["clean_accuracy", "robust_accuracy"]] == 0).all(axis=None)
    assert result.flags == ()


def test_out_of_memory_halves_the_rows_and_not_the_answers():
    sizes = []

    class Big(Plane):
        def certify(self, x, draws, batch_size):
            sizes.append(batch_size)
            if batch_size > 32:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().certify(x, draws, batch_size)

    x, y = images(150)
    settings = {"norm": "L2", "epsilons": [0.1], "batch_size": 128}
    result = evaluate(Big(), x, y, PGD(steps=1), **settings)
    assert sizes == [128, 64, 32, 32]
    plain = evaluate(Plane(), x, y, PGD(steps=1), **settings)
    assert result.certificates.equals(plain.certificates)

    class Bigger(Big):
        def certify(self, x, draws, batch_size):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(CellError, match="out of memory even with 16 rows"):
        evaluate(Bigger(), x, y, PGD(steps=1), **settings)


def test_the_audit_halves_the_rows_too():
    sizes = []

    class Big(Plane):
        def predict(self, x, draws, batch_size):
            sizes.append(batch_size)
            if batch_size > 32:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().predict(x, draws, batch_size)

    x, y = images(150)
    settings = {"norm": "L2", "epsilons": [0.4], "batch_size": 64}
    result = evaluate(Big(1.5), x, y, "ddn", **settings)
    assert sizes[:2] == [64, 32]
    assert set(sizes[2:]) == {32}
    plain = evaluate(Plane(1.5), x, y, "ddn", **settings)
    assert result.flags == plain.flags != ()


def test_a_users_mistakes_are_told_as_such():
    x, y = images()
    with pytest.raises(BadData, match=r"the model cannot take images of shape \(1, 3, 3\)"):
        evaluate(Plane(), torch.rand(4, 1, 3, 3), y[:4], PGD(steps=1), epsilons=[0.1])
    with pytest.raises(BadData, match="label 2 at index 0"):
        evaluate(Plane(), x, y + 2, PGD(steps=1), epsilons=[0.1])


def test_torchs_own_random_numbers_stay_where_they_are():
    module = Lucky(0)
    x, y = torch.rand(20, 1, 2, 2), torch.zeros(20, dtype=torch.int64)
    before = torch.get_rng_state()
    evaluate(module, x, y, PGD(steps=2), norm="L2", epsilons=[0.1])
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_belong_to_the_example():
    seen = []

    class Watching(Plane):
        def certify(self, x, draws, batch_size):
            seen.append(draws)
            return super().certify(x, draws, batch_size)

    x, y = images()
    named = torch.arange(40) * 3 + 7
    evaluate(Watching(), x, y, PGD(steps=1), epsilons=[0.1], seed=9, indices=named, batch_size=16)
    assert {one.seed for one in seen} == {9}
    assert torch.equal(torch.cat([one.example for one in seen])[: len(named)], named)


def test_other_modules_have_no_certificates(linear):
    result = evaluate(linear.module, linear.images, linear.labels, PGD(steps=1), epsilons=[0.1])
    assert result.certificates is None
    assert result.certified_accuracy is None
    assert "contradicts" not in result.records


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("other", NORMS)
def test_the_inscribed_ball_is_inside_and_touches(norm, other):
    """The farthest points of a ball of the other norm: its corners, its faces' middles."""
    order = {"Linf": np.inf, "L2": 2, "L1": 1}
    size = 9
    radius = inscribed(np.array([0.7, 0.0]), norm, other, size)
    assert radius[1] == 0
    axis, diagonal = np.eye(size)[0], np.ones(size)
    reached = [
        np.linalg.norm(radius[0] * one / np.linalg.norm(one, order[other]), order[norm])
        for one in (axis, diagonal)
    ]
    assert max(reached) <= 0.7
    assert max(reached) == pytest.approx(0.7, rel=1e-10)
