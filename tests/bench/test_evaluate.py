import copy

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.errors import BadData, BadParameter, QuintainError, UnknownPlugin
from quintain.bench.api.threat import measure

EPSILONS = ["2/255", 0.05, "0.1", "64/255"]


@pytest.fixture(scope="module")
def result(digits):
    return evaluate(
        digits.module,
        digits.images[:100],
        digits.labels[:100],
        attack="pgd",
        norm="Linf",
        epsilons=EPSILONS,
        seed=0,
        device="cpu",
    )


def clean_right(digits, count=100):
    return (digits.module(digits.images[:count]).argmax(1) == digits.labels[:count]).numpy()


def test_the_curve_follows_from_the_records(result, digits):
    curve = result.curve
    assert curve["epsilon"].tolist() == ["2/255", "0.05", "0.1", "64/255"]
    right = clean_right(digits)
    broken = np.array(result.records["broken"].tolist())
    assert (curve["clean_accuracy"] == right.mean()).all()
    for point, row in curve.iterrows():
        robust = right & ~broken[:, point]
        assert row["robust_accuracy"] == pytest.approx(robust.mean())
        assert row["attack_success_rate"] == pytest.approx(broken[right, point].mean())
        ends = binomtest(int(robust.sum()), 100).proportion_ci(method="wilson")
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((ends.low, ends.high))
    assert curve["robust_accuracy"].is_monotonic_decreasing
    assert 0.0 < curve["robust_accuracy"].iloc[1] < 0.95
    assert {"forward_mean", "backward_mean", "queries_mean", "queries_median"} <= {*curve.columns}


def test_there_is_a_record_for_each_example(result, digits):
    records = result.records
    assert records["index"].tolist() == list(range(100))
    assert records["label"].tolist() == digits.labels[:100].tolist()
    predicted = digits.module(digits.images[:100]).argmax(1)
    assert records["clean_prediction"].tolist() == predicted.tolist()
    assert records["under_attack"].tolist() == clean_right(digits).tolist()
    assert (records["target"] == -1).all()
    for _, one in records.iterrows():
        smallest = next((e for e, b in zip(EPSILONS, one["broken"], strict=True) if b), "")
        assert one["smallest_epsilon"] == str(smallest)
        assert np.isnan(one["distance"]) == (not any(one["broken"]))


def test_the_adversarials_are_what_the_records_say(result, digits):
    """Asked of the bare model, measured by numpy."""
    clean = digits.images[:100]
    broken = np.array(result.records["broken"].tolist())
    for point, (text, value) in enumerate(zip(EPSILONS, [2 / 255, 0.05, 0.1, 64 / 255],
                                              strict=True)):  # fmt: skip
        images = result.adversarials(text)
        assert images.shape == clean.shape
        delta = np.abs(images.double().numpy() - clean.double().numpy()).reshape(100, -1).max(1)
        assert (delta <= value).all()
        assert (images >= 0).all()
        assert (images <= 1).all()
        assert ((delta > 0) == broken[:, point]).all()
        fooled = (digits.module(images).argmax(1) != digits.labels[:100]).numpy()
        assert fooled[broken[:, point]].all()
    last = result.adversarials("64/255")
    distances = measure(last.double() - clean.double(), "Linf").numpy()
    found = result.records["distance"].to_numpy()
    assert (found[broken[:, -1]] <= distances[broken[:, -1]]).all()


def test_epsilons_may_be_named_by_text_or_by_value(result):
    assert torch.equal(result.adversarials(0.1), result.adversarials("0.1"))
    assert torch.equal(result.adversarials("1/10"), result.adversarials("0.1"))
    with pytest.raises(BadParameter, match=r"9/255 is not on the grid: 2/255, 0\.05, 0\.1, 64/255"):
        result.adversarials("9/255")
    with pytest.raises(BadParameter, match="'strong' is not a number"):
        result.adversarials("strong")


def test_an_attack_is_a_name_a_spec_an_object_or_a_list(digits):
    x, y = digits.images[:20], digits.labels[:20]
    spec = {"name": "pgd", "steps": 5, "gradient": {"name": "autograd"}, "loss": "margin"}
    by_spec = evaluate(digits.module, x, y, spec, epsilons=[0.1])
    from quintain.attacks.parts.losses import Margin

    by_object = evaluate(digits.module, x, y, PGD(steps=5, loss=Margin()), epsilons=[0.1])
    assert torch.equal(by_spec.adversarials(0.1), by_object.adversarials(0.1))
    both = evaluate(digits.module, x, y, ["fgsm", spec], epsilons=[0.1])
    assert (both.curve["robust_accuracy"] <= by_spec.curve["robust_accuracy"]).all()


def test_flags_are_empty_where_nothing_is_doubtful(result):
    assert result.flags == ()


def test_nothing_of_the_users_is_changed(digits):
    module = copy.deepcopy(digits.module).train()
    module[1].eval()
    module[0].weight.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    modes = [one.training for one in module.modules()]
    wanted = [one.requires_grad for one in module.parameters()]
    x, y = digits.images[:30].clone(), digits.labels[:30].clone()
    random_state = torch.get_rng_state()
    evaluate(module, x, y, ["pgd", {"name": "pgd-finite-differences", "steps": 1}], epsilons=[0.1])
    assert [one.training for one in module.modules()] == modes
    assert [one.requires_grad for one in module.parameters()] == wanted
    assert all(one.grad is None for one in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(x, digits.images[:30])
    assert torch.equal(y, digits.labels[:30])
    assert torch.equal(torch.get_rng_state(), random_state)


def test_evaluation_mode_is_used_whatever_mode_the_model_is_in(digits):
    training = copy.deepcopy(digits.module).train()
    x, y = digits.images[:30], digits.labels[:30]
    kept = evaluate(training, x, y, "fgsm", epsilons=[0.1]).records
    assert kept.equals(evaluate(digits.module, x, y, "fgsm", epsilons=[0.1]).records)


def test_other_floating_point_images_are_taken_as_float32(digits):
    x, y = digits.images[:10], digits.labels[:10]
    flatten_cascade = evaluate(digits.module, x, y, "fgsm", epsilons=[0.1])
    double = evaluate(digits.module, x.double(), y, "fgsm", epsilons=[0.1])
    assert flatten_cascade.records.equals(double.records)


def test_evaluate_is_repeatable(digits, result):
    again = evaluate(
        digits.module, digits.images[:100], digits.labels[:100], "pgd", epsilons=EPSILONS
    )
    assert again.records.equals(result.records)


X = torch.full((4, 1, 8, 8), 0.5)
Y = torch.tensor([0, 1, 2, 3])

BAD_DATA = {
    "images above 1": ({"images": X * 300}, r"\[0, 1\].*150.*divide by 255"),
    "images below 0": ({"images": X - 0.6}, r"lie in \[0, 1\].*before normalisation"),
    "images with NaN": ({"images": X.clone().index_fill_(0, Y[2:3], float("nan"))}, "image 2"),
    "images of integers": ({"images": torch.ones(4, 1, 8, 8, dtype=torch.uint8)}, "floating point"),
    "one image": ({"images": X[0]}, r"must have shape \(N, C, H, W\), not \(1, 8, 8\)"),
    "a number": ({"images": torch.tensor(0.5)}, r"not \(\)"),
    "no images": ({"images": X[:0], "labels": Y[:0]}, "there are no images"),
    "no tensor": ({"images": "images.png"}, "torch.Tensor, .* not str"),
    "other channels": ({"images": X.repeat(1, 3, 1, 1)}, r"images of shape \(3, 8, 8\)"),
    "a label too large": ({"labels": Y + 7}, "label 10 at index 3 is out of range.*10 classes"),
    "a negative label": ({"labels": Y - 1}, "label -1 at index 0"),
    "labels that are no integers": ({"labels": Y.float()}, "must be integers, not torch.float32"),
    "probabilities": ({"labels": torch.full((4, 10), 0.1)}, "must be one-hot"),
    "too few labels": ({"labels": Y[:3]}, "3 labels for 4 images"),
    "labels that are words": ({"labels": [*"abcd"]}, "labels must be a torch.Tensor, .*not list"),
    "too few targets": ({"targets": Y[:3] + 1}, r"targets must have shape \(4,\), not \(3,\)"),
    "targets that are words": ({"targets": [*"abcd"]}, "targets must be a torch.Tensor"),
    "a target too large": ({"targets": Y + 9}, "targets: label 10 at index 1"),
    "the label as target": ({"targets": torch.ones_like(Y)}, "target 1 at index 1 is the label"),
    "too few indices": ({"indices": Y[:2]}, r"indices must have shape \(4,\)"),
    "indices that are no integers": ({"indices": Y.float()}, "indices must be int64"),
    "negative indices": ({"indices": Y - 1}, "indices must be int64 and not negative"),
}  # fmt: skip

BAD_PARAMETERS = {
    "a function": ({"model": lambda x: x}, "torch.nn.Module, not function"),
    "unknown parameter": ({"attack": {"name": "pgd", "step": 3}}, "'step'; did you mean 'steps'"),
    "wrong type": ({"attack": {"name": "pgd", "steps": "3"}}, "steps = '3' is not int"),
    "no steps": ({"attack": {"name": "pgd", "steps": 0}}, "steps must be at least 1, not 0"),
    "no name": ({"attack": {"steps": 3}}, "a 'name'"),
    "no restarts": ({"attack": {"name": "pgd", "restarts": 0}}, "restarts must be an integer"),
    "a class": ({"attack": PGD}, r"PGD is a class, not an attack: pass PGD\(\)"),
    "no attack": ({"attack": 3}, "3 is not an attack"),
    "no attacks": ({"attack": []}, "list of attacks is empty"),
    "a norm that is none": ({"norm": "L3"}, "'L3' is not one of Linf, L2, L1"),
    "no epsilons": ({"epsilons": []}, "at least one value"),
    "a negative epsilon": ({"epsilons": [0.1, -0.1]}, r"epsilon -0\.1 must be positive"),
    "an epsilon of zero": ({"epsilons": [0]}, "epsilon 0 must be positive"),
    "a word": ({"epsilons": ["8/25s"]}, "'8/25s' is not a number"),
    "one epsilon": ({"epsilons": "8/255"}, "must be a list, not '8/255'"),
    "an epsilon twice": ({"epsilons": [0.5, "1/2"]}, r"twice: 0\.5 and 1/2"),
    "a negative seed": ({"seed": -1}, "seed must be an integer from 0 to 4294967295, not -1"),
    "a fractional seed": ({"seed": 0.5}, "seed must be an integer"),
    "no such search": ({"search": "grid"}, "'grid' is not one of bracket, exhaustive"),
    "no budget": ({"query_budget": 0}, "query_budget must be an integer of at least 1, not 0"),
    "no batch": ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
    "no such device": ({"device": "toaster"}, "device 'toaster' cannot be used"),
    "nothing to train on": ({"attack": "transfer"}, "pass attacker_images"),
}


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        pytest.param(kind, *case, id=name)
        for kind, cases in ((BadData, BAD_DATA), (BadParameter, BAD_PARAMETERS))
        for name, case in cases.items()
    ],
)
def test_bad_input_is_refused_in_one_clear_line(digits, kind, given, message):
    named = {"model": digits.module, "images": X, "labels": Y, "attack": "fgsm"} | given
    with pytest.raises(kind, match=message) as caught:
        evaluate(**named)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, QuintainError)


def test_an_unknown_attack_is_answered_with_the_nearest_name(digits):
    with pytest.raises(UnknownPlugin, match=r"'pdg'; did you mean 'pgd'.*fgsm,.*pgd"):
        evaluate(digits.module, X, Y, "pdg")


class Hard(nn.Module):
    """Answers without a gradient."""

    def forward(self, x):
        mean = x.detach().flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([0.7 - mean, mean - 0.7], dim=1)


def test_a_model_without_gradient_can_still_be_asked():
    x, y = torch.full((4, 1, 2, 2), 0.6), torch.zeros(4, dtype=torch.int64)
    result = evaluate(Hard(), x, y, "pgd-finite-differences", epsilons=[0.05, 0.2])
    assert result.curve["robust_accuracy"].tolist() == [1.0, 0.0]
    with pytest.raises(QuintainError, match="cannot be differentiated"):
        evaluate(Hard(), x, y, "pgd", epsilons=[0.05, 0.2])
