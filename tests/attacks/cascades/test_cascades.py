"""AutoAttack and our own cascade."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from quintain.attacks.black_box.square import Square
from quintain.attacks.cascades.autoattack import autoattack, autoattack_rand
from quintain.attacks.cascades.strongest import strongest
from quintain.attacks.parts.losses import DLR, CrossEntropy
from quintain.attacks.white_box.apgd import APGD, apgd_ce
from quintain.attacks.white_box.apgd_targeted import TargetedAPGD
from quintain.attacks.white_box.fab import FABT
from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter

QUICK = {"search": "exhaustive", "precision": "float32"}


def test_autoattack_is_the_published_cascade():
    first, targeted, fab, square = autoattack().attacks
    assert first == APGD(steps=100, rho=0.75, random_start=True, loss=CrossEntropy())
    assert targeted == TargetedAPGD(steps=100, targets=9, rho=0.75)
    assert fab == FABT(steps=100, targets=9, alpha_max=0.1, eta=1.05, beta=0.9, final_search=0)
    assert square == Square(steps=5001, first_share=0.8, scheduled_over=10_000, published=True)


def test_for_randomised_models_it_is_two_attacks_on_20_draws():
    attacks = autoattack_rand().attacks
    assert [one.loss for one in attacks] == [CrossEntropy(), DLR()]
    assert {(one.steps, one.gradient.samples) for one in attacks} == {(100, 20)}


@pytest.mark.parametrize("cascade", ["autoattack", "strongest"])
def test_it_leaves_no_more_than_its_members(digits, cascade):
    spec = {"autoattack": {"steps": 15, "queries": 60, "targets": 3}, "strongest": {"queries": 60}}
    x, y = digits.images[:40], digits.labels[:40]
    settings = {"epsilons": [0.06, 0.1], **QUICK}
    both = evaluate(digits.module, x, y, {"name": cascade, **spec[cascade]}, **settings)
    alone = evaluate(digits.module, x, y, apgd_ce(steps=15), **settings)
    assert (both.curve["robust_accuracy"] <= alone.curve["robust_accuracy"]).all()
    parts = {one for some in both.records["stage"] for one in some}
    assert parts <= set(range(-1, len(both.stages)))
    assert 0 in parts


@pytest.mark.parametrize("cascade", [autoattack(steps=8, queries=30), strongest(queries=30)])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_it_works_with_few_classes(cascade, classes):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    x = torch.rand(12, 1, 4, 4)
    y = module(x).argmax(1)
    result = evaluate(module, x, y, cascade, epsilons=[0.001, 0.5], **QUICK)
    low, high = result.curve["robust_accuracy"]
    assert low > high


def test_there_is_no_standard_in_l1(digits):
    with pytest.raises(BadParameter, match="not in L1"):
        evaluate(digits.module, digits.images[:2], digits.labels[:2], "autoattack", norm="L1")


class Saturated(nn.Module):
    """A network whose hidden units are full or shut almost everywhere."""

    def __init__(self, inner):
        super().__init__()
        torch.manual_seed(3)
        self.inner = inner
        self.spread = nn.Linear(10, 40)
        self.head = nn.Linear(40, 10)

    def forward(self, x):
        hidden = 60.0 * self.spread(self.inner(x).softmax(dim=1) - 0.1)
        return self.head(1.0 - functional.relu(1.0 - functional.relu(hidden)))


def test_smoothing_breaks_what_saturation_hides_from_the_standard(digits):
    module = Saturated(digits.module).requires_grad_(False)
    x = digits.images[:60]
    y = module(x).argmax(1)
    settings = {"epsilons": [0.1], **QUICK}
    standard = evaluate(module, x, y, autoattack(steps=20, queries=100), **settings)
    ours = evaluate(module, x, y, strongest(queries=100), **settings)
    assert any("vanishing-gradients" in flag for flag in standard.flags)
    gap = standard.curve["robust_accuracy"] - ours.curve["robust_accuracy"]
    assert gap.item() > 0.05
