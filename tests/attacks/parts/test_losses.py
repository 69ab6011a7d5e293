import pytest
import torch
from scipy.special import log_softmax

from quintain.attacks.parts.losses import CrossEntropy, Margin

LOGITS = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(20) % 5


@pytest.mark.parametrize("targeted", [False, True])
def test_cross_entropy_is_minus_the_log_probability(targeted):
    expected = -log_softmax(LOGITS.numpy(), axis=1)[range(20), Y.numpy()]
    found = CrossEntropy()(LOGITS, Y, targeted=targeted)
    assert found.numpy() == pytest.approx(-expected if targeted else expected)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_margin_is_positive_exactly_on_success(targeted):
    margin = Margin()(LOGITS, Y, targeted=targeted)
    predicted = LOGITS.argmax(1)
    assert torch.equal(margin > 0, predicted == Y if targeted else predicted != Y)
    for row, label in enumerate(Y.tolist()):
        others = [one for k, one in enumerate(LOGITS[row].tolist()) if k != label]
        gap = max(others) - LOGITS[row, label].item()
        assert margin[row].item() == pytest.approx(-gap if targeted else gap)


@pytest.mark.parametrize("loss", [CrossEntropy(), Margin()])
@pytest.mark.parametrize("targeted", [False, True])
def test_a_loss_grows_towards_the_goal_and_rows_are_apart(loss, targeted):
    logits = LOGITS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(logits, Y, targeted=targeted).sum(), logits)
    own = slope.gather(1, Y[:, None])
    assert ((own > 0) if targeted else (own < 0)).all()
    alone = loss(LOGITS[3:4], Y[3:4], targeted=targeted)
    assert alone.item() == pytest.approx(loss(LOGITS, Y, targeted=targeted)[3].item())


def test_the_margin_has_a_gradient_where_cross_entropy_has_none():
    logits = torch.tensor([[1e4, 0.0]], requires_grad=True)
    y = torch.tensor([0])
    slopes = [
        torch.autograd.grad(loss(logits, y, targeted=False).sum(), logits)[0].abs().sum().item()
        for loss in (CrossEntropy(), Margin())
    ]
    assert slopes == [0.0, 2.0]
