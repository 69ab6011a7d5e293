"""Bases, and the differences along them."""

import pytest
import torch
from builders import Scores, first_logit, problem_at, random_images
from scipy.fft import idctn

from quintain.attacks.gradients.bases import Cosines, Pixels, PrincipalComponents, RandomGroups
from quintain.attacks.gradients.directional_differences import DirectionalDifferences
from quintain.bench import evaluate
from quintain.bench.api.attack import Preparation
from quintain.bench.api.errors import BadParameter

SHAPE = (2, 4, 6)
D = 48
GRADIENT = torch.randn(D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rising(x):
    """(N, 2, 4, 6) -> (N, 1) float64, with GRADIENT everywhere."""
    return (x.double().flatten(1) @ GRADIENT)[:, None]


def problem(x=None, count=3, step=0):
    x = torch.full((count, *SHAPE), 0.5) if x is None else x
    return problem_at(x, Scores(rising, len(x)), norm="L2", epsilon=1.0, step=step)


def every(basis, at):
    """All vectors of a basis, (B, n, D)."""
    numbers = torch.arange(basis.count(at)).expand(len(at.x), -1)
    return basis.vectors(at, numbers)


def fitted(images, components):
    class Owned:
        def __len__(self):
            return len(images)

        @property
        def images(self):
            return self

        def read(self, rows):
            return images[rows]

    preparation = Preparation(None, Owned(), 10, 0, None, None, None, None, None)
    return PrincipalComponents(components).prepare(preparation)


def some_images(count=40):
    return random_images(count, *SHAPE, seed=1)


@pytest.mark.parametrize(
    ("basis", "count"),
    [(Pixels(), 48), (Cosines(0.5), 2 * 2 * 3), (Cosines(1.0), 48), (Cosines(0.01), 2),
     (RandomGroups(5), 10), (fitted(some_images(), 7), 7)],
)  # fmt: skip
def test_vectors_are_orthonormal(basis, count):
    vectors = every(basis, problem())
    assert vectors.shape == (3, count, D)
    grams = vectors.double() @ vectors.double().mT
    assert torch.allclose(grams, torch.eye(count).double().expand(3, -1, -1), atol=1e-5)


def test_cosines_are_the_waves_of_the_inverse_dct():
    vectors = every(Cosines(0.5), problem(count=1))[0].reshape(-1, *SHAPE)
    for channel in range(2):
        for down in range(2):
            for across in range(3):
                one = torch.zeros(4, 6).numpy()
                one[down, across] = 1.0
                wave = torch.from_numpy(idctn(one, norm="ortho"))
                found = vectors[(channel * 2 + down) * 3 + across]
                assert torch.allclose(found[channel], wave.float(), atol=1e-6)
                assert (found[1 - channel] == 0).all()


def test_groups_cover_every_coordinate_once_and_change_with_the_step():
    parts = every(RandomGroups(5), problem()) != 0
    assert (parts.sum(dim=1) == 1).all()
    assert parts.sum(dim=2)[0].tolist() == [5] * 9 + [3]
    assert not torch.equal(parts[0], parts[1])
    assert not torch.equal(parts, every(RandomGroups(5), problem(step=1)) != 0)


def test_principal_components_are_the_leading_eigenvectors_of_the_covariance():
    images = some_images()
    found = fitted(images, 3)
    flat = images.flatten(1).double()
    _, vectors = torch.linalg.eigh(torch.cov(flat.T))
    leading = vectors.flip(1)[:, :3].T
    cosines = (every(found, problem(count=1))[0].double() * leading).sum(dim=1).abs()
    assert cosines.numpy() == pytest.approx(1.0, abs=1e-6)
    assert found == PrincipalComponents(3)
    assert hash(found) == hash(PrincipalComponents(3))


def test_principal_components_need_the_attackers_images(digits):
    attack = {"name": "pgd-nes", "gradient": {"name": "directional-differences",
                                              "basis": "principal-components"}}  # fmt: skip
    x, y = digits.images[:4], digits.labels[:4]
    with pytest.raises(BadParameter, match="pass attacker_images"):
        evaluate(digits.module, x, y, attack)
    result = evaluate(digits.module, x, y, attack, epsilons=[0.5], attacker_images=digits.images)
    assert result.curve["robust_accuracy"].item() < 1.0
    with pytest.raises(BadParameter, match="must be prepared"):
        PrincipalComponents().count(problem())


@pytest.mark.parametrize("basis", [Pixels(), Cosines(0.5), RandomGroups(5)])
def test_on_a_straight_loss_the_estimate_is_the_projection_on_the_span(basis):
    at = problem()
    found = DirectionalDifferences(basis, spacing=0.1)(at, at.x, first_logit).double().flatten(1)
    vectors = every(basis, at).double()
    expected = ((vectors @ GRADIENT)[:, None] @ vectors)[:, 0]
    assert torch.allclose(found, expected, atol=1e-5)
    assert len(torch.cat(at.victim.points)) == 3 * 2 * basis.count(at)


def test_some_directions_are_drawn_afresh_at_each_step():
    drawn = []
    for step in (0, 1):
        at = problem(step=step)
        found = DirectionalDifferences(Pixels(), directions=4)(at, at.x, first_logit).flatten(1)
        assert ((found != 0).sum(dim=1) == 4).all()
        drawn.append(found != 0)
    assert not torch.equal(*drawn)


def test_at_the_border_a_slope_is_over_the_distance_moved():
    x = torch.tensor([0.0, 1.0, 0.5]).repeat(D // 3).reshape(1, *SHAPE)
    at = problem(x)
    found = DirectionalDifferences(Pixels(), spacing=0.1)(at, x, first_logit).double().flatten(1)
    assert torch.allclose(found[0], GRADIENT, atol=1e-5)
    probes = torch.cat(at.victim.points)
    assert (probes.min(), probes.max()) == (0.0, 1.0)


def test_the_estimate_does_not_depend_on_how_many_are_asked_together(monkeypatch):
    at = problem()
    source = DirectionalDifferences(RandomGroups(5))
    whole = source(at, at.x, first_logit)
    name = "quintain.attacks.gradients.directional_differences.PROBES_AT_ONCE"
    monkeypatch.setattr(name, 1)
    assert torch.equal(source(problem(), at.x, first_logit), whole)


@pytest.mark.parametrize(
    ("kind", "given"),
    [(Cosines, {"share": 0.0}), (RandomGroups, {"size": 0}),
     (PrincipalComponents, {"components": 0}), (DirectionalDifferences, {"directions": 0}),
     (DirectionalDifferences, {"spacing": 0.0})],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(kind, given):
    (name,) = given
    with pytest.raises(BadParameter, match=name):
        kind(**given)
