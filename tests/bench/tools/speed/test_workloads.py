"""What is attacked: shapes, data, and images that the network gets right."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from quintain.bench.api import registry
from quintain.bench.api.errors import BadData
from quintain.bench.datasets.in_memory import select
from quintain.bench.store.checkpoints import save_checkpoint
from quintain.bench.tools.speed.workloads import NAMES, built_in, own


@pytest.mark.parametrize("name", ["cnn-standard", "resnet18-adversarial"])
def test_built_in_networks_take_the_digits_in_their_shape(name):
    candidate = built_in(name, None, None)
    candidate.check()
    assert name in NAMES
    shape = (1, 28, 28) if name.startswith("cnn") else (3, 32, 32)
    assert candidate.train.shape == candidate.test.shape == shape
    assert len(set(candidate.train.labels.tolist())) == 10


def test_built_in_networks_take_a_dataset_that_is_named():
    candidate = built_in("cnn-standard", {"name": "digits", "size": 16}, 0.3)
    assert candidate.train.shape == (1, 16, 16)
    assert candidate.epsilon == 0.3


class Constant(nn.Module):
    """Says 3, and looks at the image only as far as a gradient needs."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.0] * 3 + [1.0] + [0.0] * 6))

    def forward(self, x):
        return 0.0 * x.flatten(1)[:, :1] + self.bias


@pytest.fixture
def constant(tmp_path):
    registry.model("constant")(lambda inputs: Constant())
    save_checkpoint(tmp_path / "constant.safetensors", Constant(), {})
    return own({"name": "constant"}, {}, None, tmp_path / "constant.safetensors", None)


def test_only_images_that_the_network_gets_right_are_attacked(constant):
    workload = constant.ready(torch.device("cpu"), 200)
    assert 30 <= len(workload.y) < 200
    assert set(workload.y.tolist()) == {3}
    assert not any(one.requires_grad for one in workload.module.parameters())
    x, y = workload.examples(250)
    assert (len(x), len(y)) == (250, 250)
    assert torch.equal(x[: len(workload.x)], workload.x)


def test_a_network_that_gets_none_right_is_refused(constant):
    others = (constant.test.labels != 3).nonzero().flatten()
    with pytest.raises(BadData, match=f"classifies none of {len(others)} test images rightly"):
        replace(constant, test=select(constant.test, others)).ready(torch.device("cpu"), 250)
