"""Deep plain networks train worse than shallow ones, residual ones do not (arXiv:1512.03385)."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_digits

from quintain.bench.api.defense import InputSpec
from quintain.models.resnet import resnet


def training_accuracy(depth, block, steps=280, last=40):
    """Mean over the last batches, as they came."""
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16.0
    x, y = F.interpolate(x, 16), torch.tensor(digits.target)
    torch.manual_seed(0)
    inputs = InputSpec((1, 16, 16), 10, (0.3,), (0.37,))
    network = resnet(inputs, depth=depth, width=0.25, block=block)
    network = network.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
    right = []
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        logits = network(x[rows])
        optimiser.zero_grad()
        F.cross_entropy(logits, y[rows]).backward()
        optimiser.step()
        schedule.step()
        right.append((logits.argmax(dim=1) == y[rows]).float().mean().item())
    return sum(right[-last:]) / last


@pytest.mark.slow
def test_depth_degrades_plain_networks_only():
    shallow, deep = training_accuracy(8, "plain"), training_accuracy(56, "plain")
    residual = training_accuracy(56, "residual")
    assert shallow > 0.95
    assert residual > 0.95
    assert deep < 0.8
