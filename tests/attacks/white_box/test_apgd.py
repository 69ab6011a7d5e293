"""Auto-PGD: on planes whose distance is known, its schedule, its losses, its targets."""

import pytest
import torch

from quintain.attacks.parts.losses import DLR, CrossEntropy, Margin, SummedHinge, Towards
from quintain.attacks.white_box.apgd import APGD, checkpoints
from quintain.attacks.white_box.apgd_targeted import TargetedAPGD
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter

LOSSES = [CrossEntropy(), DLR(), Margin(), SummedHinge()]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda one: type(one).__name__)
def test_on_a_plane_it_breaks_what_can_be_broken(linear, norm, loss):
    grid = linear.grid(norm, 4)
    result = evaluate(
        linear.module, linear.images, linear.labels, APGD(loss=loss), norm=norm, epsilons=grid
    )
    exact = [(linear.distances[norm] > one).mean() for one in grid]
    assert result.curve["robust_accuracy"].tolist() == pytest.approx(exact, abs=0.02)


def test_two_classes_have_one_target(linear):
    grid = linear.grid("Linf", 4)
    result = evaluate(linear.module, linear.images, linear.labels, "apgd-t", epsilons=grid)
    exact = [(linear.distances["Linf"] > one).mean() for one in grid]
    assert result.curve["robust_accuracy"].tolist() == pytest.approx(exact, abs=0.02)
    robust = [not any(one) for one in result.records["broken"]]
    assert (
        result.records["backward"][robust] <= 165
    ).all()  # the walk, and one full-budget attempt


def test_progress_is_checked_ever_more_often():
    assert [at for at, _ in checkpoints(100)] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [window for _, window in checkpoints(100)] == [22, 19, 16, 13, 10, 7, 6, 6]
    assert checkpoints(1) == [(1, 1)]


def test_it_is_no_weaker_than_pgd_with_as_many_steps(digits):
    x, y = digits.images, digits.labels
    settings = {"epsilons": [0.08, 0.12], "search": "exhaustive", "precision": "float32"}
    mine = evaluate(digits.module, x, y, APGD(steps=30), **settings).curve["robust_accuracy"]
    pgd = evaluate(digits.module, x, y, PGD(steps=30), **settings).curve["robust_accuracy"]
    assert (mine <= pgd + 0.02).all()
    assert 0 < mine.min() < 0.9


def test_a_saturated_model_resists_cross_entropy_and_not_the_ratio(digits):
    class Sure(torch.nn.Module):
        def forward(self, x):
            return 3000.0 * digits.module(x)

    settings = {"epsilons": [0.1], "search": "exhaustive", "precision": "float32"}
    x, y = digits.images[:60], digits.labels[:60]
    robust = {
        type(loss).__name__: evaluate(Sure(), x, y, APGD(steps=30, loss=loss), **settings).curve[
            "robust_accuracy"
        ][0]
        for loss in (CrossEntropy(), DLR())
    }
    plain = evaluate(digits.module, x, y, APGD(steps=30, loss=DLR()), **settings).curve[
        "robust_accuracy"
    ][0]
    assert robust["CrossEntropy"] > robust["DLR"] + 0.1
    assert robust["DLR"] == pytest.approx(plain, abs=0.03)


def test_the_ratio_does_not_change_with_scale_and_shift():
    logits = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 4])
    target = (y + 1) % 6
    for loss in (DLR(), Towards(target)):
        for targeted in (False, True):
            value = loss(logits, y, targeted=targeted)
            assert torch.allclose(value, loss(7.0 * logits - 3.0, y, targeted=targeted))


def test_the_losses_are_those_of_the_paper():
    logits, y = torch.tensor([[5.0, 3.0, 2.0, 1.0]]), torch.tensor([0])
    assert DLR()(logits, y, targeted=False).item() == pytest.approx(-(5 - 3) / (5 - 2))
    towards = Towards(torch.tensor([2]))
    assert towards(logits, y, targeted=False).item() == pytest.approx(-(5 - 2) / (5 - 1.5))
    assert SummedHinge()(logits, y, targeted=False).item() == pytest.approx(-(2 + 3 + 4))
    assert SummedHinge()(logits, torch.tensor([1]), targeted=True).item() == pytest.approx(-2)


@pytest.mark.parametrize("classes", [2, 3])
def test_with_few_classes_the_ratios_are_still_losses(classes):
    logits = torch.tensor([[1.0, 0.5, 0.2]])[:, :classes].requires_grad_()
    y = torch.tensor([0])
    for loss in (DLR(), Towards(torch.tensor([1]))):
        for targeted in (False, True):
            value = loss(logits, y, targeted=targeted)
            (slope,) = torch.autograd.grad(value.sum(), logits)
            assert slope.isfinite().all()
            assert slope.abs().sum() > 0


@pytest.mark.parametrize("attack", ["apgd-ce", "apgd-dlr", "apgd-margin", "apgd-t"])
def test_it_reaches_targets(digits, attack):
    x, y = digits.images[:40], digits.labels[:40]
    targets = (y + 1) % 10
    result = evaluate(digits.module, x, y, attack, epsilons=[0.4], targets=targets)
    assert result.curve["attack_success_rate"].item() > 0.6
    found = torch.tensor([one != "" for one in result.records["smallest_epsilon"]])
    predicted = digits.module(result.adversarials(0.4)).argmax(1)
    assert (predicted == targets)[found].all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: APGD(steps=0), "steps must be at least 1, not 0"),
        (lambda: APGD(rho=1.5), "rho must lie between 0 and 1, not 1.5"),
        (lambda: TargetedAPGD(targets=0), "targets must be at least 1, not 0"),
        (lambda: TargetedAPGD(steps=0), "steps must be at least 1, not 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(BadParameter, match=said):
        make()
