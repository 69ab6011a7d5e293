"""Gradients, points and logits that are not finite: never robust, and the right one is blamed."""

from dataclasses import dataclass

import pytest
import torch
from builders import Iterate
from torch import nn

from quintain.attacks.gradients.external_model import Borrowed
from quintain.attacks.white_box.deepfool import DeepFool
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.errors import CellError
from quintain.bench.engine import cell
from quintain.bench.victim.fast_copy import FastCopy, Variant
from quintain.bench.victim.precision_selection import PrecisionChoice

EVERY = lambda x: torch.ones(len(x), dtype=torch.bool)  # noqa: E731


class Spoilt(nn.Module):
    """A network with a term that is zero and whose gradient is not finite.

    where: (B, C, H, W) -> (B,) bool, the inputs that have the term. pixels: how many have it.
    """

    def __init__(self, inner, where=EVERY, pixels=None):
        super().__init__()
        self.inner = inner
        self.where = where
        self.pixels = pixels

    def forward(self, x):
        rows = self.where(x.detach()).nonzero().flatten()
        some = x.flatten(1)[rows, : self.pixels]
        term = 0 * (some - some.detach()).square().sum(1, keepdim=True).sqrt()
        logits = self.inner(x)
        return logits.float().index_add(0, rows, term.expand(-1, logits.shape[1]))


class NotAtAll(nn.Module):
    """The same logits for every image near a grey one, so flat; else those of another network."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        flat = (x.flatten(1)[:, 0] > 0.9)[:, None]
        return torch.where(flat, torch.tensor([1.0, 0.0]), self.inner(x))


def attacked(module, linear, attack, count=12, *, reach=1.5, **named):
    settings = {"norm": "Linf"} | named
    epsilon = float(linear.distances[settings["norm"]][:count].max() * reach)
    settings = {"epsilons": [epsilon]} | settings
    return evaluate(module, linear.images[:count], linear.labels[:count], attack, **settings)


def single_step(name):
    """An attack with the least work that its parameters allow."""
    for parameters in ({"steps": 6, "rounds": 2}, {"steps": 4}, {}):
        try:
            return registry.build("attacks", {"name": name, **parameters})
        except Exception:
            continue
    raise AssertionError(name)


WHITE_BOX = [
    one.name
    for one in registry.plugins("attacks")
    if getattr(registry.build("attacks", one.name), "access", "") == "white-box"
]


@pytest.mark.parametrize("name", WHITE_BOX)
def test_no_white_box_attack_counts_examples_without_a_gradient_as_robust(linear, name):
    attack = single_step(name)
    norm = getattr(attack, "norms", ("Linf",))[0]
    robust, said = None, ""
    try:
        result = attacked(Spoilt(linear.module), linear, attack, 6, norm=norm)
        robust = result.curve["robust_accuracy"][0]
    except CellError as error:
        said = str(error)
    # What a cascade's stage without gradients, or a random start, has broken is broken.
    assert robust == 0.0 or "the model's gradient is not finite for" in said
    assert name not in {"fgsm", "pgd", "apgd", "deepfool"} or "for 6 of 6 examples" in said


@pytest.mark.parametrize("search", ["bracket", "exhaustive"])
@pytest.mark.parametrize(
    "attack", ["fgsm", {"name": "pgd", "steps": 5}, {"name": "apgd", "steps": 5}]
)
def test_the_message_says_of_how_many_by_which_attack_and_whose_fault_it_is(linear, attack, search):
    said = r"the model's gradient is not finite for 12 of 12 examples that (PGD|APGD) could not"
    with pytest.raises(CellError, match=said):
        attacked(Spoilt(linear.module), linear, attack, search=search, epsilons=[0.001, 0.002])


def test_examples_beside_one_that_has_no_gradient_go_on_as_ever(linear):
    only = linear.images[3]

    def where(x):
        return (x - only).flatten(1).abs().amax(1) < 1e-3

    epsilons = [0.0005]
    with pytest.raises(CellError, match="for 1 of 12 examples"):
        attacked(
            Spoilt(linear.module, where), linear, PGD(4, random_start=False), epsilons=epsilons
        )
    rest = [number for number in range(12) if number != 3]
    with_it = evaluate(
        Spoilt(linear.module, where), linear.images[rest], linear.labels[rest], PGD(4),
        epsilons=linear.grid("Linf", 3), indices=torch.tensor(rest),
    )  # fmt: skip
    without = evaluate(
        linear.module, linear.images[rest], linear.labels[rest], PGD(4),
        epsilons=linear.grid("Linf", 3), indices=torch.tensor(rest),
    )  # fmt: skip
    assert with_it.records.equals(without.records)


def test_an_attack_follows_the_pixels_that_have_a_gradient(linear):
    # What it breaks is broken; the gradient of two of sixteen pixels is missing.
    result = attacked(Spoilt(linear.module, pixels=2), linear, PGD(5), reach=3.0)
    assert result.curve["robust_accuracy"][0] == 0.0


def test_a_later_stage_that_works_on_an_example_answers_for_it(linear):
    spoilt = Spoilt(linear.module)
    result = attacked(spoilt, linear, ["fgsm", {"name": "square", "steps": 20}], reach=0.01)
    assert result.curve["robust_accuracy"][0] == 1.0
    with pytest.raises(CellError, match="that PGD could not break"):
        attacked(spoilt, linear, [{"name": "square", "steps": 20}, "fgsm"], reach=0.01)


def test_no_later_stage_answers_without_queries_left(linear):
    stages = ["fgsm", {"name": "square", "steps": 20}]
    with pytest.raises(CellError, match="gradient is not finite"):
        attacked(Spoilt(linear.module), linear, stages, reach=0.01, query_budget=1)


@dataclass(frozen=True)
class RootOfNothing:
    """A loss that is finite, and has no slope."""

    def __call__(self, logits, y, *, targeted):
        return (logits - logits.detach()).square().sum(1).sqrt()


def test_a_loss_without_a_slope_is_the_attacks_own_fault(linear):
    with pytest.raises(CellError, match=r"the gradient of the attack's loss is not finite for 12"):
        attacked(linear.module, linear, PGD(3, loss=RootOfNothing()), reach=0.01)


class Attached:
    """A whole attack that differentiates the logits itself."""

    access = "white-box"

    def run(self, problem):
        x = problem.x.clone().requires_grad_()
        problem.victim.differentiable(x)[:, 0].sum().backward()
        assert x.grad.isfinite().all()
        return problem.ball.project(problem.x + problem.ball.radius * x.grad.sign())


def test_logits_that_the_attack_differentiates_itself_are_looked_at_too(linear):
    with pytest.raises(CellError, match=r"the model's gradient is not finite for 12 of 12 .*Attac"):
        attacked(Spoilt(linear.module), linear, Attached(), reach=0.01)
    assert attacked(linear.module, linear, Attached(), reach=0.01).flags == ()


def test_a_fast_copy_without_a_gradient_is_no_proof_against_the_model(linear, monkeypatch):
    def spoilt_copy(module, *_):
        return PrecisionChoice(FastCopy(Spoilt(module), Variant("bfloat16")))

    monkeypatch.setattr(cell, "choose", spoilt_copy)
    result = attacked(linear.module, linear, PGD(10), reach=2.0)
    plain = attacked(linear.module, linear, PGD(10), reach=2.0, precision="float32")
    assert result.curve["robust_accuracy"][0] == plain.curve["robust_accuracy"][0] == 0.0


def test_a_gradient_source_of_the_attackers_own_is_not_believed_either(linear):
    attack = PGD(3, gradient=Borrowed("theirs"), random_start=False)
    with pytest.raises(CellError, match=r"the attack .* not finite"):
        attacked(
            linear.module, linear, attack, reach=0.01,
            attacker_networks={"theirs": Spoilt(linear.module)},
        )  # fmt: skip


# -------------------------------------------------------------------------- points and logits


@dataclass(frozen=True)
class AsksNaN:
    """Asks about an image that is not finite, for one example of the batch."""

    how: str
    access: str = "white-box"
    steps: int = 1

    def start(self, problem):
        return Iterate(problem.x)

    def step(self, problem, state):
        x = problem.x.clone()
        x[0, 0, 0, 0] = torch.nan
        if self.how == "gradient":
            problem.victim.gradient(x, lambda logits: logits[:, 0])
        else:
            getattr(problem.victim, self.how)(x)
        return state


@pytest.mark.parametrize("how", ["gradient", "differentiable", "scores", "labels"])
def test_a_point_that_is_not_finite_is_the_attacks_fault(linear, how):
    with pytest.raises(CellError, match="the attack asked about an image that is not finite"):
        attacked(linear.module, linear, AsksNaN(how))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_the_models_fault(linear, value):
    class Breaks(nn.Module):
        def forward(self, x):
            logits = linear.module(x)
            far = (x.flatten(1)[:, 0] - 0.5).abs() > 0.06
            return torch.where(far[:, None], value, logits)

    with pytest.raises(CellError, match="the model returned logits that are not finite"):
        attacked(Breaks(), linear, PGD(4), epsilons=[0.3])


def test_deepfool_stays_where_the_network_is_flat(linear):
    x, y = linear.images[:6].clone(), linear.labels[:6].clone()
    x[2, 0, 0, 0], y[2] = 0.95, 0
    for norm in DeepFool.norms:
        grid = [
            float(linear.distances[norm].max()) * 1.1,
            float(linear.distances[norm].max()) * 1.2,
        ]
        result = evaluate(NotAtAll(linear.module), x, y, "deepfool", norm=norm, epsilons=grid[:1])
        broken = [one[0] for one in result.records["broken"]]
        assert broken[:2] + broken[3:] == [True] * 5
        assert result.records["distance"].drop(2).lt(grid[0]).all()


def test_as_many_classes_as_at_first(linear):
    class Grows(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            logits = linear.module(x)
            return logits if self.calls < 3 else torch.cat([logits, logits.new_zeros(len(x), 1)], 1)

    with pytest.raises(CellError, match="logits of 3 classes, and of 2 when it was asked before"):
        attacked(Grows(), linear, PGD(4))
