import pytest
import torch
from builders import linear
from torch import nn

from quintain.bench.api.errors import BadData
from quintain.defenses.training.loop.objective import Batch, heads
from quintain.defenses.training.mart import MART


def by_the_paper(clean, adversarial, y, beta):
    """Equation 11, an image at a time, from probabilities in float64."""
    total = 0.0
    for p, q, label in zip(clean.softmax(1), adversarial.softmax(1), y.tolist(), strict=True):
        others = torch.cat([q[:label], q[label + 1 :]])
        boosted = -q[label].log() - (1 - others.max()).log()
        total = total + boosted + beta * (p * (p / q).log()).sum() * (1 - p[label])
    return total / len(y)


def loss_of(defense, clean, adversarial, y, weight=0.25):
    class Headed(nn.Module):
        auxiliary_weight = weight

        def forward(self, x):
            return adversarial if x.mean() else clean

    model, x = Headed(), torch.zeros(len(y), 1, 1, 1)
    batch = Batch(x, y, torch.arange(len(y)), 0.0, torch.Generator())
    return defense.loss(lambda at: heads(model, model(at)), batch, x + 1)


Y = torch.tensor([0, 1, 2, 3, 0, 1, 2])


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return [(3 * torch.randn(7, 4, generator=generator)).requires_grad_() for _ in range(4)]


@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_loss_and_gradients_are_the_papers(logits, beta):
    clean, adversarial = logits[:2]
    ours = loss_of(MART(beta=beta), clean, adversarial, Y)
    given = torch.autograd.grad(ours.loss, (clean, adversarial), allow_unused=True)
    double = [one.detach().double().requires_grad_() for one in (clean, adversarial)]
    reference = by_the_paper(*double, Y, beta)
    assert ours.loss.item() == pytest.approx(reference.item(), rel=1e-5)
    assert torch.equal(ours.logits, adversarial)
    for one, other in zip(given, torch.autograd.grad(reference, double), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-6)


def test_two_classes_make_the_boosted_cross_entropy_twice_the_ordinary_one(logits):
    clean, adversarial = (one[:, :2].detach() for one in logits[:2])
    y = Y % 2
    ours = loss_of(MART(beta=0.0), clean, adversarial, y).loss
    assert ours.item() == pytest.approx(2 * nn.functional.cross_entropy(adversarial, y).item())


def test_certain_answers_give_finite_losses_and_gradients():
    """log(1 - p) of a probability that rounds to 1 in float32."""
    certain = torch.tensor([[0.0, 80.0, 0.0]], requires_grad=True)
    wrong = loss_of(MART(), certain.detach(), certain, torch.tensor([0])).loss
    (gradient,) = torch.autograd.grad(wrong, certain)
    assert wrong.item() == pytest.approx(80 + 80 - torch.tensor(2.0).log().item(), rel=1e-5)
    assert gradient.isfinite().all()
    assert gradient[0, 1] > 0.9
    right = loss_of(MART(), certain.detach(), certain, torch.tensor([1])).loss
    assert right.item() == pytest.approx(0.0, abs=1e-6)


def test_auxiliary_classifiers_have_the_same_loss_by_their_weight(logits):
    main, near, side, side_near = (one.detach() for one in logits)
    ours = loss_of(MART(beta=3.0), (main, side), (near, side_near), Y)
    reference = by_the_paper(main.double(), near.double(), Y, 3.0)
    reference = reference + 0.25 * by_the_paper(side.double(), side_near.double(), Y, 3.0)
    assert ours.loss.item() == pytest.approx(reference.item(), rel=1e-5)


def test_probabilities_are_refused_in_one_line(training, stripes):
    x, y = stripes
    soft = nn.functional.one_hot(y, 2).float()
    model = linear(inputs=36)
    with pytest.raises(BadData, match="mart needs a class for each image: it cannot train on prob"):
        MART(epsilon=0.1).fit(model, training(x, soft))
