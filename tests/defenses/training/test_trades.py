import pytest
import torch
from builders import linear
from torch import nn

from quintain.defenses.training.loop.inner_attack import Adversary, against_clean, nearby
from quintain.defenses.training.loop.objective import Batch, heads
from quintain.defenses.training.trades import TRADES


def batch(x, y, seed=0):
    return Batch(x, y, torch.arange(len(x)), 0.0, torch.Generator().manual_seed(seed))


def softmax(logits):
    """From its definition."""
    return logits.exp() / logits.exp().sum(dim=1, keepdim=True)


def by_the_paper(clean, adversarial, target, beta):
    """Mean of -sum_k t_k log p_k + beta sum_k p_k log(p_k / q_k); target: (B, K)."""
    p, q = softmax(clean), softmax(adversarial)
    return (-(target * p.log()).sum(1) + beta * (p * (p / q).log()).sum(1)).mean()


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    made = [3 * torch.randn(7, 4, generator=generator) for _ in range(4)]
    return [one.requires_grad_() for one in made]


class Headed(nn.Module):
    """Answers with given logits to two inputs, of a main and an auxiliary classifier."""

    auxiliary_weight = 0.25

    def __init__(self, clean, adversarial):
        super().__init__()
        self.answers = {0: clean, 1: adversarial}

    def forward(self, x):
        return self.answers[int(x[0, 0, 0, 0])]


def loss_of(defense, clean, adversarial, y):
    model = Headed(clean, adversarial)
    x = torch.zeros(len(y), 1, 1, 1)
    return defense.loss(lambda at: heads(model, model(at)), batch(x, y), x + 1)


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_loss_and_gradients_are_the_papers(logits, beta):
    clean, adversarial = logits[:2]
    y = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    ours = loss_of(TRADES(beta=beta), clean, adversarial, y)
    given = torch.autograd.grad(ours.loss, (clean, adversarial))
    double = [one.detach().double().requires_grad_() for one in (clean, adversarial)]
    reference = by_the_paper(*double, nn.functional.one_hot(y, 4), beta)
    assert ours.loss.item() == pytest.approx(reference.item(), rel=1e-5)
    assert torch.equal(ours.logits, adversarial)
    for one, other in zip(given, torch.autograd.grad(reference, double), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-6)


def test_probabilities_and_smoothing_change_the_clean_term_alone(logits):
    clean, adversarial = (one.detach() for one in logits[:2])
    soft = torch.rand(7, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    ours = loss_of(TRADES(beta=2.0), clean, adversarial, soft).loss
    assert ours.item() == pytest.approx(
        by_the_paper(clean, adversarial, soft, 2.0).item(), rel=1e-5
    )
    y = torch.arange(7) % 4
    smooth = 0.8 * nn.functional.one_hot(y, 4) + 0.2 / 4
    ours = loss_of(TRADES(beta=2.0, label_smoothing=0.2), clean, adversarial, y).loss
    reference = by_the_paper(clean, adversarial, smooth, 2.0)
    assert ours.item() == pytest.approx(reference.item(), rel=1e-5)


def test_auxiliary_classifiers_have_the_same_loss_by_their_weight(logits):
    main, near, side, side_near = (one.detach() for one in logits)
    y = torch.arange(7) % 4
    target = nn.functional.one_hot(y, 4)
    ours = loss_of(TRADES(beta=3.0), (main, side), (near, side_near), y)
    reference = by_the_paper(main, near, target, 3.0)
    reference = reference + 0.25 * by_the_paper(side, side_near, target, 3.0)
    assert ours.loss.item() == pytest.approx(reference.item(), rel=1e-5)
    assert torch.equal(ours.logits, near)


def test_the_attack_reaches_the_farthest_answer_on_its_side_of_a_linear_network():
    """The divergence is convex along the weights and 0 at the image: its maxima are two corners."""
    generator = torch.Generator().manual_seed(0)
    x = 0.3 + 0.4 * torch.rand(40, 1, 4, 4, generator=generator)
    model, epsilon = linear(), 0.1
    weight = (model[1].weight[1] - model[1].weight[0]).detach()
    attack = Adversary("Linf", epsilon, 10, 0.25, nearby, against_clean)
    x_adv = attack.perturb(model, batch(x, torch.zeros(40).long()))
    side = ((x_adv - x).flatten(1) @ weight).sign()
    corner = x + epsilon * (side[:, None] * weight.sign()).reshape(x.shape)
    torch.testing.assert_close(x_adv, corner)
    assert 5 < (side > 0).sum() < 35  # the noise at the start decides which


def test_it_starts_from_normal_noise_of_a_thousandth():
    x = torch.full((50, 1, 8, 8), 0.5)
    still = Adversary("Linf", 0.1, 1, 1e-12, nearby)
    model = linear(inputs=64)
    moved = still.perturb(model, batch(x, torch.zeros(50).long())) - x
    assert moved.std().item() == pytest.approx(0.001, rel=0.05)
    assert moved.mean().abs() < 1e-4
    assert moved.abs().max() > 0.003
    narrow = Adversary("Linf", 0.0005, 1, 1e-12, nearby)
    assert (narrow.perturb(model, batch(x, torch.zeros(50).long())) - x).abs().max() <= 0.0005


def test_running_statistics_see_clean_and_adversarial_images_once_each(training, two_cues):
    """The loss takes two passes in training mode; all of the attack's are in evaluation mode."""
    x, y = two_cues
    model = nn.Sequential(nn.BatchNorm2d(1), *linear())
    defense = TRADES(epochs=1, batch_size=600, validation_share=0.0, epsilon=0.1, steps=3)
    trained = defense.fit(model, training(x, y))
    assert trained.model[0].num_batches_tracked == 2
