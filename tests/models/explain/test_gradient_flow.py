from math import prod

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from builders import input_spec
from torch import nn

from quintain.models.deep_cnn import deep_cnn
from quintain.models.explain.gradient_flow import training_loss, weight_gradients
from quintain.models.googlenet import googlenet
from quintain.models.resnet import resnet

DEPTH = 4


def test_norms_of_a_linear_network_are_known():
    """Of logits W x the gradient is (softmax - one-hot) x^T, averaged over the batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, y = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    error = model(x).softmax(dim=1) - F.one_hot(y, 3)
    expected = (error.T @ x.flatten(1) / len(x)).norm().item()
    assert weight_gradients(model, x, y) == {"1": pytest.approx(expected, rel=1e-5)}


def test_a_sigmoids_gradient_is_at_most_a_quarter_of_the_weights_gain_a_layer():
    torch.manual_seed(0)
    network = deep_cnn(input_spec(6), depth=DEPTH, activation="sigmoid", width=0.125).double()
    x, y = torch.rand(1, 3, 6, 6).double(), torch.tensor([1])
    inner = network.reduce(network.activation(network.stem(network.normalise(x))))
    bottom = inner.detach().requires_grad_()
    top = network.layers(bottom)
    loss = F.cross_entropy(network.classifier(top.mean(dim=(2, 3))), y)
    below, above = torch.autograd.grad(loss, [bottom, top])
    gains = prod(_gain(layer.conv, bottom.shape) for layer in network.layers)
    assert 0.0 < below.norm() <= 0.25**DEPTH * gains * above.norm()
    # the bound is of the right size: with weights near zero every derivative is nearly 0.25
    assert below.norm() > 1e-4 * 0.25**DEPTH * gains * above.norm()


def _gain(conv, shape):
    """The largest singular value of a convolution as a matrix."""
    without_bias = lambda x: F.conv2d(x, conv.weight.detach(), padding=1)  # noqa: E731
    matrix = torch.func.jacrev(without_bias)(torch.zeros(shape, dtype=torch.float64))
    size = prod(shape)
    return float(torch.linalg.matrix_norm(matrix.reshape(size, size), 2))


def test_the_model_is_left_as_it_is():
    torch.manual_seed(0)
    model = resnet(input_spec(16), depth=8, width=0.25).eval()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    weight_gradients(model, torch.rand(4, 3, 16, 16), torch.arange(4))
    assert not model.training
    assert all(one.grad is None for one in model.parameters())
    for name, one in model.state_dict().items():
        assert torch.equal(one, before[name]), name


def test_auxiliary_classifiers_count_by_their_weight():
    torch.manual_seed(0)
    model = googlenet(input_spec(16), width=0.0625, dropout=0.0)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    x, y = torch.rand(4, 3, 16, 16), torch.arange(4)
    main, first, second = model.train()(x)
    expected = F.cross_entropy(main, y) + 0.3 * (
        F.cross_entropy(first, y) + F.cross_entropy(second, y)
    )
    torch.testing.assert_close(training_loss(model, x, y), expected)
    found = weight_gradients(model, x, y)
    assert any(name.startswith("auxiliary") and norm > 0 for name, norm in found.items())
    assert weight_gradients(model, x, y) == found  # dropout is off: the same number again


def test_a_layer_that_is_not_used_has_no_gradient():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(12, 3), nn.Linear(12, 3)

        def forward(self, x):
            return self.used(x.flatten(1))

    found = weight_gradients(Spare(), torch.rand(2, 3, 2, 2), torch.arange(2))
    assert found["spare"] == 0.0 < found["used"]
