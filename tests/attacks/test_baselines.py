"""Baselines that know nothing."""

import pytest
import torch
from torch import nn

from quintain.attacks.baselines import Grey, Noise, SaltAndPepper
from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter


class Bright(nn.Module):
    """Class 1 from a mean of 0.4 on."""

    def forward(self, x):
        mean = x.flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([0.4 - mean, mean - 0.4], dim=1)


def dark(count=12, value=0.1):
    return torch.full((count, 1, 6, 6), value), torch.zeros(count, dtype=torch.int64)


def test_the_way_to_grey_ends_at_the_first_point_beyond_the_boundary():
    x, y = dark(value=0.11)
    result = evaluate(Bright(), x, y, Grey(steps=100), epsilons=[0.29, 0.3, 0.4])
    assert result.curve["robust_accuracy"].tolist() == [1, 0, 0]
    assert result.records["distance"].tolist() == pytest.approx([0.75 * 0.39] * 12)


def test_salt_and_pepper_turns_as_few_pixels_as_its_order_needs():
    x, y = dark(value=0.3)
    result = evaluate(Bright(), x, y, SaltAndPepper(36), norm="L1", epsilons=[2.0, 12.0, 36.0])
    adversarial = result.adversarials(36.0)
    moved = adversarial != x
    assert result.curve["robust_accuracy"].tolist()[0] == 1
    found = result.records["distance"].notna()
    assert found.any()
    values = adversarial[moved].unique().tolist()
    assert set(values) <= {0.0, 1.0}
    assert (Bright()(adversarial).argmax(1) == 1).tolist() == found.tolist()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_noise_lies_on_the_edge_of_the_ball(norm):
    x, y = dark(value=0.5)

    seen = []

    class Watching(nn.Module):
        def forward(self, images):
            seen.append(images[: len(x)])
            return torch.cat([images.flatten(1)[:, :1] * 0 + 1, images.flatten(1)[:, :1] * 0], 1)

    evaluate(Watching(), x, y, Noise(steps=3), norm=norm, epsilons=[0.05])
    order = {"Linf": float("inf"), "L2": 2, "L1": 1}[norm]
    sizes = [(one - 0.5).flatten(1).norm(p=order, dim=1) for one in seen]
    on_edge = [size for size in sizes if size.tolist() == pytest.approx([0.05] * 12, rel=1e-4)]
    assert len(on_edge) == 3
    assert all((size < 0.05 * 1.0001).all() for size in sizes)  # the model's checks lie within


@pytest.mark.parametrize("kind", [Noise, Grey, SaltAndPepper])
def test_no_steps_are_refused(kind):
    with pytest.raises(BadParameter, match="steps must be at least 1, not 0"):
        kind(steps=0)
