"""Inversion where the answer is known, and its priors against formulas and scikit-learn."""

from functools import partial

import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import nn

from quintain.bench.api.errors import BadData, BadParameter
from quintain.models.explain.image_priors import (
    PatchMixture,
    PixelScale,
    alpha_norm,
    fit_patch_mixture,
    total_variation,
    weighted,
)
from quintain.models.explain.inversion import invert
from quintain.models.explain.layers import reader

UNIT = PixelScale(torch.tensor([0.5, 0.5]).double(), 0.25)


@pytest.fixture
def x0():
    return torch.rand(3, 2, 3, 3, generator=torch.Generator().manual_seed(0)).double()


def linear(singular_values, seed=1):
    """A linear layer on 18 values with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(18, 18, generator=generator, dtype=torch.float64)).Q
        for _ in range(2)
    )
    layer = nn.Linear(18, len(singular_values)).double()
    with torch.no_grad():
        size = len(singular_values)
        layer.weight.copy_(left[:size, :size] @ torch.diag(singular_values) @ right[:size])
    return nn.Sequential(nn.Flatten(), layer)


def test_an_invertible_layer_without_a_prior_gives_the_image_back(x0):
    model = linear(torch.linspace(0.5, 2.0, 18).double())
    found = invert(model, model(x0), (2, 3, 3), UNIT, iterations=3000, restarts=2, seed=4)
    assert found.images.shape == (2, 3, 2, 3, 3)
    assert (found.images - x0).abs().max() < 1e-6
    assert found.spread.max() < 1e-6
    assert found.best_error.max() < 1e-12


def test_what_a_layer_drops_stays_open_and_differs_between_restarts(x0):
    model = linear(torch.ones(6).double())
    found = invert(model, model(x0), (2, 3, 3), UNIT, iterations=1500, restarts=3)
    assert found.feature_error.max() < 1e-9
    assert (found.best - x0).abs().max() > 0.05
    assert (found.spread > 0.01).all()


def test_with_a_quadratic_prior_it_is_ridge_regression(x0):
    """||A x - A x0||^2 / ||A x0||^2 + w mean(u^2) has a closed minimum."""
    model, weight = linear(torch.linspace(0.2, 2.0, 18).double()), 0.05
    prior = weighted((weight, partial(alpha_norm, alpha=2.0)))
    found = invert(model, model(x0), (2, 3, 3), UNIT, prior, iterations=3000)
    matrix, bias = model[1].weight.detach(), model[1].bias.detach()
    for image, x in zip(found.best, x0, strict=True):
        target = matrix @ x.flatten() + bias
        ridge = weight / 18 / UNIT.rms**2 * target.square().sum()
        left = matrix.T @ matrix + ridge * torch.eye(18).double()
        right = matrix.T @ (target - bias) + ridge * 0.5
        expected = torch.linalg.solve(left, right)
        torch.testing.assert_close(image.flatten(), expected, rtol=0.0, atol=1e-6)


def test_images_do_not_depend_on_their_batch_and_the_seed_repeats(x0):
    model = linear(torch.linspace(0.5, 2.0, 18).double())

    def run(rows, seed=0):
        features = model(x0)[rows]
        return invert(reader(model, "1"), features, (2, 3, 3), UNIT, iterations=5, seed=seed)

    assert torch.equal(run([0, 1]).images, run([0, 1]).images)
    assert not torch.equal(run([0, 1]).images, run([0, 1], seed=1).images)
    torch.testing.assert_close(run([0, 1]).images[:, :1], run([0]).images)


def test_the_best_restart_is_that_of_the_smallest_loss(x0):
    model = linear(torch.ones(6).double())
    found = invert(model, model(x0), (2, 3, 3), UNIT, iterations=7, restarts=4)
    for index in range(3):
        row = found.loss[:, index].argmin()
        assert torch.equal(found.best[index], found.images[row, index])
        assert found.best_error[index] == found.feature_error[row, index]


def test_progress_is_told_after_each_iteration(x0):
    seen = []
    invert(lambda x: x, x0, (2, 3, 3), UNIT, iterations=3, progress=seen.append)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"iterations": 0}, BadParameter),
        ({"restarts": 0}, BadParameter),
        ({"learning_rate": 0.0}, BadParameter),
        ({"features": torch.zeros(1, 18)}, BadData),
        ({"features": torch.ones(1, 17)}, BadData),
    ],
)
def test_bad_input_is_refused(change, error):
    arguments = {"features": torch.ones(1, 18), "shape": (2, 3, 3), "scale": UNIT} | change
    with pytest.raises(error):
        invert(lambda x: x.flatten(1), **arguments)


def test_the_scale_takes_data_to_zero_mean_and_unit_square_and_back():
    images = torch.rand(50, 3, 8, 8) * torch.tensor([0.2, 0.5, 1.0]).reshape(3, 1, 1)
    scale = PixelScale.of(images)
    u = scale.scaled(images)
    assert u.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert float(u.square().mean()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(scale.image(u), images)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_total_variation_of_a_step_and_of_scaled_images(beta):
    step = torch.zeros(1, 1, 8, 8).double()
    step[..., 4:] = 3.0
    assert float(total_variation(step, beta)) == pytest.approx(8 * 3.0**beta / 64, abs=1e-5)
    noise = torch.randn(2, 3, 8, 8).double()
    expected = 2.0**beta * total_variation(noise, beta)
    torch.testing.assert_close(total_variation(2 * noise, beta), expected)
    torch.testing.assert_close(
        total_variation(noise.transpose(2, 3), beta), total_variation(noise, beta)
    )


@pytest.mark.parametrize("prior", [alpha_norm, total_variation, partial(total_variation, beta=1.0)])
def test_priors_have_gradients_everywhere(prior):
    flat = torch.full((1, 2, 4, 4), 0.3).double()
    for u in (flat, torch.zeros_like(flat), torch.randn(1, 2, 4, 4).double()):
        u.requires_grad_()
        (gradient,) = torch.autograd.grad(prior(u).sum(), u)
        assert gradient.isfinite().all()
    assert torch.autograd.gradcheck(prior, torch.randn(1, 2, 4, 4).double().requires_grad_())


@pytest.fixture(scope="module")
def natural():
    """Smooth images: a random walk along both axes."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(60, 2, 12, 12, generator=generator)
    return PixelScale.of(walked := steps.cumsum(2).cumsum(3)).scaled(walked)


def test_the_mixture_gives_scikit_learns_likelihood(natural):
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(400, 18, generator=generator, dtype=torch.float64).cumsum(dim=1)
    theirs = GaussianMixture(3, random_state=0).fit(patches.numpy())
    ours = PatchMixture(
        3,
        torch.from_numpy(theirs.weights_).log(),
        torch.from_numpy(theirs.means_),
        torch.from_numpy(theirs.precisions_cholesky_),
    )
    expected = torch.from_numpy(theirs.score_samples(patches.numpy()))
    torch.testing.assert_close(ours.log_likelihood(patches), expected, rtol=1e-9, atol=1e-9)


def test_the_patch_prior_is_the_mean_over_all_patches_and_differentiable(natural):
    prior = fit_patch_mixture(natural, side=3, components=2, patches=2000)
    u = natural[:2, :, :5, :4].double()
    total = 0.0
    for top in range(3):
        for left in range(2):
            patch = u[:, :, top : top + 3, left : left + 3]
            centred = (patch - patch.mean(dim=(2, 3), keepdim=True)).flatten(1)
            total = total - prior.log_likelihood(centred) / 18
    torch.testing.assert_close(prior(u), total / 6)
    assert torch.autograd.gradcheck(prior, u.requires_grad_())


def test_the_patch_prior_prefers_images_of_its_kind(natural):
    prior = fit_patch_mixture(natural[:40], side=3, components=4, patches=3000, seed=1)
    fresh = natural[40:]
    order = torch.rand(20, 144).argsort(dim=1)[:, None].expand(-1, 2, -1)
    shuffled = fresh.flatten(2).gather(2, order).reshape(fresh.shape)
    assert (prior(fresh) < prior(shuffled) - 1.0).all()
    torch.testing.assert_close(prior(fresh + 5.0), prior(fresh), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("arguments", [{"side": 13}, {"side": 1}, {"components": 0}])
def test_mixtures_that_cannot_be_fitted_are_refused(natural, arguments):
    with pytest.raises(BadParameter):
        fit_patch_mixture(natural, **arguments)
