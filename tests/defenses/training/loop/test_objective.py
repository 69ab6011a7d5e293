import math

import pytest
import torch
from builders import random_images
from torch import nn

from quintain.bench.api.errors import BadPlugin
from quintain.defenses.training.loop.objective import classification, hard


class Headed(nn.Module):
    """A linear network with two auxiliary classifiers in training mode."""

    def __init__(self, weight=0.3):
        super().__init__()
        self.main, self.first, self.second = (nn.Linear(16, 3) for _ in range(3))
        if weight is not None:
            self.auxiliary_weight = weight

    def forward(self, x):
        flat = x.flatten(1)
        if not self.training:
            return self.main(flat)
        return self.main(flat), self.first(flat), self.second(flat)


X = random_images(6, 1, 4, 4)
Y = torch.tensor([0, 1, 2, 0, 1, 1])


def by_hand(logits, y):
    """Mean cross-entropy, from its definition."""
    rows = logits.tolist()
    terms = [
        math.log(sum(math.exp(z) for z in row)) - row[k]
        for row, k in zip(rows, y.tolist(), strict=True)
    ]
    return sum(terms) / len(terms)


def test_auxiliary_losses_count_by_their_weight():
    torch.manual_seed(0)
    model = Headed()
    losses = [by_hand(one, Y) for one in model(X)]
    loss, logits = classification(model, X, Y)
    assert loss.item() == pytest.approx(losses[0] + 0.3 * (losses[1] + losses[2]), rel=1e-5)
    assert torch.equal(logits, model.main(X.flatten(1)))
    model.eval()
    assert classification(model, X, Y).loss.item() == pytest.approx(losses[0], rel=1e-5)


def test_auxiliary_gradients_are_softmax_minus_label_by_their_weight():
    torch.manual_seed(0)
    model = Headed(0.25)
    classification(model, X, Y).loss.backward()
    onehot = nn.functional.one_hot(Y, 3).float()
    for head, weight in ((model.main, 1.0), (model.first, 0.25), (model.second, 0.25)):
        error = head(X.flatten(1)).softmax(1) - onehot
        expected = weight * error.T @ X.flatten(1) / len(Y)
        torch.testing.assert_close(head.weight.grad, expected.detach())


def test_a_network_must_say_the_weight_of_its_auxiliary_logits():
    with pytest.raises(BadPlugin, match="Headed returns auxiliary logits but has no"):
        classification(Headed(None), X, Y)


def test_probabilities_that_are_certain_are_classes():
    model = Headed().eval()
    certain = nn.functional.one_hot(Y, 3).float()
    torch.testing.assert_close(
        classification(model, X, certain).loss, classification(model, X, Y).loss
    )
    assert torch.equal(hard(certain), Y)
    assert torch.equal(hard(Y), Y)


def test_probabilities_and_smoothing_are_mixtures_of_losses():
    model = Headed().eval()
    logits = model(X)
    each = [by_hand(logits, torch.full_like(Y, k)) for k in range(3)]
    soft = torch.tensor([0.2, 0.3, 0.5]).expand(6, 3)
    expected = 0.2 * each[0] + 0.3 * each[1] + 0.5 * each[2]
    assert classification(model, X, soft).loss.item() == pytest.approx(expected, rel=1e-5)
    smooth = classification(model, X, Y, label_smoothing=0.3).loss.item()
    assert smooth == pytest.approx(0.7 * by_hand(logits, Y) + 0.3 * sum(each) / 3, rel=1e-5)
