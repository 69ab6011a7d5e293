import pytest
import torch
from torch.nn import functional

from quintain.attacks.white_box.fgsm import fgsm
from quintain.bench import evaluate


def sign_step(module, x, y, epsilon):
    """The formula of the paper, written out: x + epsilon * sign(gradient of the loss)."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(module(x), y), x)
    return (x + epsilon * gradient.sign()).clamp(0, 1).detach()


def test_it_is_the_formula_of_the_paper(digits):
    x, y = digits.images[:80], digits.labels[:80]
    epsilons = [0.03, 0.06, 0.1]
    result = evaluate(digits.module, x, y, "fgsm", epsilons=epsilons, search="exhaustive")
    right = digits.module(x).argmax(1) == y
    for point, epsilon in enumerate(epsilons):
        stepped = sign_step(digits.module, x, y, epsilon)
        fooled = right & (digits.module(stepped).argmax(1) != y)
        broken = torch.tensor([one[point] for one in result.records["broken"]])
        assert fooled.any()
        assert torch.equal(broken, fooled)
        assert torch.allclose(result.adversarials(epsilon)[fooled], stepped[fooled], atol=1e-6)


def test_it_costs_one_gradient_and_one_look(digits):
    records = evaluate(
        digits.module, digits.images[:40], digits.labels[:40], "fgsm", epsilons=[0.05]
    ).records
    under = records[records["under_attack"]]
    assert (under["forward"] == 2).all()
    assert (under["backward"] == 1).all()


def test_it_is_an_attack_of_its_own_at_each_epsilon(digits):
    """One long step may overshoot: what it breaks at one epsilon it may miss at a larger one."""
    x, y = digits.images[:60], digits.labels[:60]
    result = evaluate(digits.module, x, y, "fgsm", epsilons=[0.02, 0.1, 0.9])
    assert result.records[result.records["under_attack"]]["attacked"].map(all).all()
    for point, epsilon in enumerate((0.02, 0.1, 0.9)):
        alone = evaluate(digits.module, x, y, "fgsm", epsilons=[epsilon]).records["broken"]
        assert [one[point] for one in result.records["broken"]] == [one[0] for one in alone]


@pytest.mark.parametrize("norm", ["L2", "L1"])
def test_it_works_in_other_norms(digits, norm):
    result = evaluate(
        digits.module, digits.images[:60], digits.labels[:60], fgsm(), norm=norm, epsilons=[3.0]
    )
    assert result.curve["robust_accuracy"][0] < result.curve["clean_accuracy"][0]
