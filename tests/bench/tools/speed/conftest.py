"""A job small enough that every contender does it at once."""

import pytest
import torch

from quintain.bench.tools.speed.contenders import Job


@pytest.fixture
def job(digits):
    """PGD in four steps on 32 images that the network of the tests reads rightly."""
    module = digits.module.requires_grad_(False)
    with torch.no_grad():
        right = module(digits.images).argmax(1) == digits.labels
    x, y = digits.images[right][:32].contiguous(), digits.labels[right][:32]
    yield Job(module, x, y, n_classes=10, steps=4, step_size=0.5, batch_size=16)
    module.requires_grad_(True)
