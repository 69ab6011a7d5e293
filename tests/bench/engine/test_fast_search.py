"""Gradients from a faster copy, predictions from the model."""

import json

import pytest
import torch
from torch import nn

from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.progress import Silent
from quintain.bench.api.threat import Epsilon
from quintain.bench.datasets.in_memory import TensorImages
from quintain.bench.engine.cascade import CascadeRunner
from quintain.bench.engine.config import AttackStage, CellConfig
from quintain.bench.engine.loop import AttackInputs
from quintain.bench.victim import precision_selection
from quintain.bench.victim.fast_copy import Variant
from quintain.bench.victim.model import Network, frozen

GRID = tuple(Epsilon.parse(one) for one in (0.05, 0.1, 0.2, 0.3))


class Shifted(nn.Module):
    """A copy whose logits favour wrong classes: it sees successes where there are none."""

    def __init__(self, module, shift):
        super().__init__()
        self.module = module
        self.shift = shift

    def forward(self, x):
        logits = self.module(x)
        best = logits.detach().amax(dim=1, keepdim=True)
        return logits - self.shift * (logits == best)


def ran(digits, fast=None, tolerance=0.0, **named):
    count = 60
    with frozen(digits.module) as module:
        labels = module(digits.images[:count]).argmax(1)
        network = Network(module, torch.device("cpu"), 32)
        field = AttackInputs(
            network,
            TensorImages(digits.images[:count]),
            labels,
            torch.arange(count),
            CellConfig("Linf", GRID, **named),
            32,
            Silent(),
        )
        copied = fast and Network(fast, torch.device("cpu"), 32, tolerance)
        return CascadeRunner(field, copied).run([AttackStage(PGD(steps=7))])


@pytest.mark.parametrize("named", [{}, {"search": "exhaustive"}])
def test_what_a_copy_finds_and_the_model_does_not_reproduce_is_searched_for_again(digits, named):
    alone = ran(digits, **named)
    assert 0.2 < alone.broken.mean() < 0.9
    outcomes = ran(digits, Shifted(digits.module, 1.5), **named)
    assert (outcomes.broken >= alone.broken).all()
    assert not outcomes.not_reproduced.any()
    assert outcomes.forward.sum() > alone.forward.sum()  # both searches are counted


def test_within_its_tolerance_a_copy_is_not_believed(digits, monkeypatch):
    not_reproduced = []
    pursue = CascadeRunner._run_stage

    def watched(self, *arguments):
        answer = pursue(self, *arguments)
        not_reproduced.append(len(answer))
        return answer

    monkeypatch.setattr(CascadeRunner, "_run_stage", watched)
    eager = ran(digits, Shifted(digits.module, 1.5))
    careful = ran(digits, Shifted(digits.module, 1.5), tolerance=3.1)
    assert not_reproduced[0] > 10
    assert not_reproduced[1:] == [0, 0, 0]
    assert (eager.broken >= ran(digits).broken).all()
    assert abs(float(careful.broken.mean()) - float(eager.broken.mean())) < 0.05


def test_under_a_query_budget_there_is_no_copy(digits):
    alone = ran(digits, query_budget=6)
    outcomes = ran(digits, Shifted(digits.module, 1.5), query_budget=6)
    assert outcomes.broken.tolist() == alone.broken.tolist()
    assert (outcomes.forward <= 6).all()


def test_bfloat16_can_be_asked_for_and_is_named(digits):
    settings = {"epsilons": [0.05, 0.1, 0.2], "attack": {"name": "pgd", "steps": 10}}
    images, labels = digits.images[:100], digits.labels[:100]
    exact, rough, auto = (
        evaluate(digits.module, images, labels, precision=one, **settings)
        for one in ("float32", "bfloat16", "auto")
    )
    assert exact.choice.variant == auto.choice.variant == Variant()  # too little work for a trial
    assert rough.choice.variant.dtype == "bfloat16"
    gap = rough.curve["robust_accuracy"] - exact.curve["robust_accuracy"]
    assert gap.abs().max() <= 0.05
    assert not any(flag.startswith("not-reproduced") for flag in rough.flags)
    for epsilon in settings["epsilons"]:
        x_adv = rough.adversarials(epsilon)
        wrong = digits.module(x_adv).argmax(1) != labels
        robust = rough.curve.set_index("epsilon").loc[str(epsilon), "robust_accuracy"]
        assert float((~wrong).double().mean()) == pytest.approx(robust)


def test_black_box_attacks_see_the_model_alone(digits):
    attack = {"name": "pgd-finite-differences", "steps": 1, "gradient": {
        "name": "finite-differences", "coordinates": 4}}  # fmt: skip
    result = evaluate(
        digits.module, digits.images[:8], digits.labels[:8], attack, epsilons=[0.1],
        precision="bfloat16",
    )  # fmt: skip
    assert result.choice is None


def test_an_unknown_precision_is_refused(digits):
    with pytest.raises(BadParameter, match="'float16' is not one of auto, float32, bfloat16"):
        evaluate(digits.module, digits.images[:2], digits.labels[:2], precision="float16")


def test_a_suite_names_the_precision_and_the_manifest_says_what_was_used(
    quintain, write_suite, tmp_path
):
    out = tmp_path / "out"
    answer = quintain("run", write_suite(precision='"bfloat16"'), "--out", out)
    assert answer.code == 0, answer.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (network,) = manifest["networks"]
    assert network["precision"]["variant"].startswith("bfloat16")
    table = (tmp_path / "out" / "tradeoff.csv").read_text()
    assert ",bfloat16," in table


def test_a_run_goes_on_with_the_copy_that_it_began_with(
    quintain, write_suite, tmp_path, tables, monkeypatch
):
    out = tmp_path / "out"
    monkeypatch.setattr(precision_selection, "_WORTHWHILE", 0.0)
    monkeypatch.setattr(precision_selection, "_ALIKE", 0.5)
    monkeypatch.setattr(precision_selection, "time_ratio", lambda *_: 0.1)
    path = write_suite()
    assert quintain("run", path, "--out", out).code == 0
    before = tables(out)
    chosen = json.loads((out / "manifest.json").read_text())["networks"][0]["precision"]["variant"]
    assert chosen != "float32"
    monkeypatch.setattr(precision_selection, "time_ratio", lambda *_: pytest.fail("a second trial"))
    records = sorted((tmp_path / "out" / "records").glob("*pgd*.parquet"))
    records[0].unlink()
    answer = quintain("run", path, "--out", out)
    assert answer.code == 0, answer.err
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["networks"][0]["precision"]["variant"] == chosen
    assert tables(out) == before
