from functools import partial

import pytest
import torch
from builders import input_spec

from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter
from quintain.models.small_cnn import small_cnn

spec = partial(input_spec, channels=1)


def test_parameter_count_is_that_of_the_papers_code():
    with torch.device("meta"):
        network = small_cnn(spec(28))
    assert sum(one.numel() for one in network.parameters()) == 3_274_634


@pytest.mark.parametrize("inputs", [spec(4), spec(28), spec(30, 17, channels=3)])
def test_logits_and_a_gradient_at_every_pixel(inputs):
    torch.manual_seed(0)
    network = small_cnn(inputs, width=0.25).eval()
    x = torch.rand(16, *inputs.shape, requires_grad=True)
    logits = network(x)
    assert logits.shape == (16, 10)
    logits.square().sum().backward()
    height, breadth = (side // 4 * 4 for side in inputs.shape[1:])  # pooling drops what is over
    assert (x.grad[..., :height, :breadth] != 0).any(dim=0).all()


def test_a_suite_can_name_it():
    factory = registry.bind("models", {"name": "small-cnn", "width": 0.25})
    assert factory(spec(28)).eval()(torch.rand(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize(("inputs", "width", "says"), [
    (spec(3, 28), 1.0, "images of 3x28 are too small"),
    (spec(28), 0.0, "width 0.0 must be positive"),
])  # fmt: skip
def test_what_cannot_be_built_is_refused(inputs, width, says):
    with pytest.raises(BadParameter, match=says):
        small_cnn(inputs, width=width)
