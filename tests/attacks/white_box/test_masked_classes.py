"""A class whose logit is -inf can never be predicted; losses and attacks leave it out."""

import pytest
import torch
from torch import nn

from quintain.attacks.parts.losses import DLR, CrossEntropy, Margin, SummedHinge, Towards
from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.errors import CellError

LOSSES = [CrossEntropy(), Margin(), DLR(), SummedHinge(), Towards(torch.tensor([1, 2]))]


class Masked(nn.Module):
    """A network with more classes, which it never gives."""

    def __init__(self, inner, more=2):
        super().__init__()
        self.inner = inner
        self.more = more

    def forward(self, x):
        logits = self.inner(x)
        return torch.cat([logits, logits.new_full((len(x), self.more), -torch.inf)], dim=1)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_loss_and_its_slope_are_those_without_the_masked_classes(loss, targeted, classes):
    y = torch.tensor([0, 1])
    if isinstance(loss, Towards):
        loss = Towards(1 - y)
    logits = torch.tensor([[2.0, 1.0, -1.0, 0.3], [0.5, 3.0, 2.0, -2.0]])[:, :classes]
    fewer, more = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    masked = torch.cat([more, torch.full((2, 3), -torch.inf)], dim=1)
    wanted, seen = loss(fewer, y, targeted=targeted), loss(masked, y, targeted=targeted)
    torch.testing.assert_close(seen, wanted)
    wanted.sum().backward()
    seen.sum().backward()
    torch.testing.assert_close(more.grad, fewer.grad)


NAMES = ["fgsm", "apgd-dlr", "apgd-t", "fab-t", "fab", "deepfool", "fmn", "square", "simba"]


@pytest.mark.parametrize("name", NAMES)
def test_attacks_break_a_model_with_masked_classes_as_they_do_without(linear, name):
    spec = {"name": name, "steps": 12} if name != "fgsm" else {"name": name}
    norm = getattr(registry.build("attacks", spec), "norms", ("Linf",))[0]
    found = [
        evaluate(
            module, linear.images[:20], linear.labels[:20], spec, norm=norm,
            epsilons=linear.grid(norm, 2),
        ).records["broken"].tolist()
        for module in (linear.module, Masked(linear.module))
    ]  # fmt: skip
    assert found[0] == found[1]
    assert any(one[-1] for one in found[0])


def test_no_class_of_an_example_may_be_masked(linear):
    class Half(nn.Module):
        def forward(self, x):
            return linear.module(x) + torch.tensor([0.0, -torch.inf])

    first = int(linear.labels.argmax())
    said = f"logit of class 1 is -inf at index {first}, and it is the label there"
    with pytest.raises(CellError, match=said):
        evaluate(Half(), linear.images, linear.labels, "fgsm", epsilons=[0.1])
    targets, module = torch.full_like(linear.labels, 2), Masked(linear.module)
    with pytest.raises(CellError, match="class 2 is -inf at index 0, and it is the target there"):
        evaluate(module, linear.images, linear.labels, epsilons=[0.1], targets=targets)


def test_a_model_that_masks_every_class_fails(linear):
    class Nothing(nn.Module):
        def forward(self, x):
            return linear.module(x) - torch.inf

    with pytest.raises(CellError, match="the model returned logits that are not finite"):
        evaluate(Nothing(), linear.images, linear.labels, "fgsm", epsilons=[0.1])
