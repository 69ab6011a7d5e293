"""The largest eigenvalue against exact Hessians and finite differences."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call

from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadParameter
from quintain.models.explain.curvature import (
    hessian_product,
    largest_eigenvalue,
    power_iteration,
)
from quintain.models.resnet import resnet


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 3)
    ).double()


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(7, 1, 4, 4, generator=generator).double(), torch.arange(7) % 3


def exact(model, x, y):
    """The whole Hessian, entry by entry, in evaluation mode."""
    model.eval()
    names = [name for name, _ in model.named_parameters()]
    shapes = [one.shape for one in model.parameters()]

    def loss(flat):
        parts = flat.split([one.numel() for one in shapes])
        weights = {n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(functional_call(model, weights, (x,)), y)

    return hessian(loss, nn.utils.parameters_to_vector(model.parameters()).detach())


def test_the_product_is_the_exact_hessians_in_any_batches(tiny, data):
    matrix = exact(tiny, *data)
    vector = torch.randn(len(matrix), generator=torch.Generator().manual_seed(2)).double()
    tiny.train()
    for batch_size in (7, 3):
        product = hessian_product(tiny, *data, batch_size=batch_size)
        torch.testing.assert_close(product(vector), matrix @ vector)
    assert tiny.training


def test_the_eigenvalue_is_the_exact_hessians_largest_in_magnitude(tiny, data):
    values, vectors = torch.linalg.eigh(exact(tiny, *data))
    at = values.abs().argmax()
    found = largest_eigenvalue(tiny, *data, iterations=2000, tolerance=1e-9)
    assert found.value == pytest.approx(float(values[at]), rel=1e-6)
    assert found.residual < 1e-8
    assert float(found.vector.dot(vectors[:, at]).abs()) == pytest.approx(1.0, abs=1e-6)


def test_the_product_is_what_finite_differences_of_the_gradient_give():
    torch.manual_seed(0)
    model = resnet(InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3), depth=8, width=0.25)
    model = model.double().eval()
    nn.init.normal_(model.classifier.weight)
    x, y = torch.rand(4, 3, 16, 16).double(), torch.arange(4)
    found = largest_eigenvalue(model, x, y, iterations=200)
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()

    def slope(at):
        nn.utils.vector_to_parameters(at, model.parameters())
        gradient = torch.autograd.grad(F.cross_entropy(model(x), y), [*model.parameters()])
        return torch.cat([one.flatten() for one in gradient])

    step = 1e-6 * found.vector
    difference = (slope(weights + step) - slope(weights - step)) / 2e-6
    assert float(difference @ found.vector) == pytest.approx(found.value, rel=1e-4)
    assert float((difference - found.value * found.vector).norm()) < 0.02 * abs(found.value)


def test_the_sign_is_told_and_a_tie_is_not_taken_for_an_answer():
    diagonal = torch.tensor([2.0, -5.0, 4.0]).double()
    found = power_iteration(lambda v: diagonal * v, torch.ones(3).double(), tolerance=1e-9)
    assert found.value == pytest.approx(-5.0)
    assert 1 < found.iterations < 100
    tie = torch.tensor([3.0, -3.0]).double()
    between = power_iteration(lambda v: tie * v, torch.tensor([1.0, 0.5]).double())
    assert between.residual > 0.5
    zero = power_iteration(lambda v: 0 * v, torch.ones(2))
    assert (zero.value, zero.residual) == (0.0, 0.0)
    with pytest.raises(BadParameter, match="iterations = 0"):
        power_iteration(lambda v: v, torch.ones(2), iterations=0)


def test_weights_in_another_memory_format_are_measured_alike(data):
    """As trained networks are: their weights are not contiguous."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 2), nn.Flatten()).double()
    expected = largest_eigenvalue(model, *data).value
    found = largest_eigenvalue(model.to(memory_format=torch.channels_last), *data).value
    assert found == pytest.approx(expected, rel=1e-3)
