"""What holds for each built-in network: the seam ModelFactory."""

import math
from functools import partial

import pytest
import torch
from builders import input_spec
from torch.nn.functional import cross_entropy

from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter
from quintain.models.alexnet import alexnet
from quintain.models.googlenet import googlenet
from quintain.models.resnet import resnet
from quintain.models.wide_resnet import wide_resnet

spec = partial(input_spec, n_classes=7)

NETWORKS = {
    "alexnet": partial(alexnet, width=0.125),
    "alexnet-two-branches": partial(alexnet, width=0.125, groups=2),
    "googlenet": partial(googlenet, width=0.0625),
    "googlenet-without-batch-norm": partial(googlenet, width=0.0625, batch_norm=False),
    "resnet-8": partial(resnet, depth=8, width=0.5),
    "resnet-18": partial(resnet, depth=18, width=0.125),
    "resnet-50": partial(resnet, depth=50, width=0.125),
    "resnet-18-pre-activation": partial(resnet, width=0.125, block="pre-activation"),
    "resnet-14-plain": partial(resnet, depth=14, width=0.5, block="plain"),
    "googlenet-naive": partial(googlenet, width=0.0625, modules="naive"),
    "wide-resnet": partial(wide_resnet, depth=10, width=0.5),
}


@pytest.fixture(params=NETWORKS)
def factory(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]


@pytest.mark.parametrize(
    ("shape", "stem"),
    [
        ((1, 16, 16), "auto"),
        ((1, 28, 28), "auto"),
        ((3, 32, 32), "auto"),
        ((5, 64, 97), "auto"),
        ((3, 224, 224), "auto"),
    ],
)
def test_logits_for_any_size_and_number_of_channels(factory, shape, stem):
    channels, height, width = shape
    with torch.device("meta"):
        network = factory(spec(height, width, channels), stem=stem)
        x = torch.empty(2, *shape)
        trained = network.train()(x)
        for logits in trained if isinstance(trained, tuple) else (trained,):
            assert logits.shape == (2, 7)
        assert network.eval()(x).shape == (2, 7)


def test_float32_and_finite_on_the_smallest_images(factory):
    network = factory(spec(16, channels=1)).eval()
    assert {one.dtype for one in network.parameters()} == {torch.float32}
    logits = network(torch.rand(3, 1, 16, 16))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert logits.std(dim=0).max() > 0.0


@pytest.mark.parametrize(("height", "width"), [(15, 16), (16, 15), (8, 8), (1, 224)])
def test_too_small_images_are_refused(factory, height, width):
    with pytest.raises(BadParameter, match=f"images of {height}x{width} are too small"):
        factory(spec(height, width))


def test_gradient_reaches_every_pixel_and_every_weight(factory):
    network = factory(spec(16))
    x = torch.rand(8, 3, 16, 16, requires_grad=True)
    out = network.train()(x)
    sum(logits.square().sum() for logits in (out if isinstance(out, tuple) else (out,))).backward()
    assert (x.grad != 0).any(dim=0).all()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in network.parameters())


def test_a_row_does_not_depend_on_its_batch(factory):
    network = factory(spec(16)).eval()
    torch.manual_seed(1)
    x, other = torch.rand(16, 3, 16, 16), torch.rand(24, 3, 16, 16)
    with torch.no_grad():
        mixed = network(torch.cat([other, x]))[24:]
        flipped = network(x.flip(0)).flip(0)
        torch.testing.assert_close(network(x), mixed, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(network(x), flipped, rtol=1e-4, atol=1e-6)


def test_the_generator_decides_the_weights(factory):
    def build(seed):
        torch.manual_seed(seed)
        return factory(spec(16)).state_dict()

    first, again, other = build(3), build(3), build(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_first_loss_is_that_of_a_guess(factory):
    network = factory(spec(16)).train()
    x, y = torch.rand(32, 3, 16, 16), torch.randint(7, (32,))
    out = network(x)
    logits = out[0] if isinstance(out, tuple) else out
    assert cross_entropy(logits, y).item() == pytest.approx(math.log(7), abs=0.4)


@pytest.mark.parametrize(
    "name", ["alexnet", "googlenet", "resnet-8", "resnet-18-pre-activation", "wide-resnet"]
)
def test_a_few_steps_of_training_reduce_the_loss(name):
    torch.manual_seed(0)
    network = NETWORKS[name](spec(16, channels=1)).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    y = torch.arange(32) % 2
    x = 0.2 * torch.rand(32, 1, 16, 16)
    x[y == 1, :, :, 8:] += 0.8
    losses = []
    for _ in range(15):
        out = network(x)
        logits, *auxiliary = out if isinstance(out, tuple) else (out,)
        loss = cross_entropy(logits, y)
        losses.append(loss.item())
        for one in auxiliary:
            loss = loss + network.auxiliary_weight * cross_entropy(one, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert sum(losses[-3:]) / 3 < 0.6 * losses[0]


def test_channels_last_images_stay_so_in_every_layer(factory):
    """A layer that changes the order of memory makes the next convolution copy what it is given."""
    network = factory(spec(32)).to(memory_format=torch.channels_last).eval()
    order = []
    for name, layer in network.named_modules():
        layer.register_forward_hook(
            lambda _, __, out, name=name: order.append(
                (name, out.dim() < 4 or out.is_contiguous(memory_format=torch.channels_last))
            )
        )
    network(torch.rand(2, 3, 32, 32).contiguous(memory_format=torch.channels_last))
    assert len(order) > 10
    assert [name for name, kept in order if not kept] == []


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet", "wide-resnet"])
def test_a_suite_can_name_each_network_with_its_width(name):
    network = registry.bind("models", {"name": name, "width": 0.125, "stem": "small"})(spec(16))
    assert network.eval()(torch.rand(1, 3, 16, 16)).shape == (1, 7)
    with pytest.raises(BadParameter, match="width"):
        registry.bind("models", {"name": name, "width": "wide"})
