"""Ways in which a model or an attack could bend its numbers, each found by review."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.errors import AccessDenied, CellError
from quintain.bench.report.tables import leaderboard
from quintain.bench.store.cell import Cell, Lost


class WritesIntoItsInput(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x.sub_(0.1).add_(0.1))


def test_a_model_that_writes_into_its_input_changes_nothing(digits):
    images, labels = digits.images[:40].clone(), digits.labels[:40]
    named = {"epsilons": [0.1, 0.2], "attack": ["fgsm", {"name": "pgd", "steps": 5}]}
    before = images.clone()
    seen = evaluate(WritesIntoItsInput(digits.module), images, labels, **named)
    plain = evaluate(digits.module, images, labels, **named)
    assert torch.equal(images, before)
    assert seen.curve["robust_accuracy"].tolist() == plain.curve["robust_accuracy"].tolist()


def test_a_budget_that_never_binds_makes_one_step_attacks_no_weaker(digits):
    named = {"attack": "fgsm", "epsilons": [0.02, 0.05, 0.1, 0.2, 0.3, 0.4]}
    images, labels = digits.images[:80], digits.labels[:80]
    free = evaluate(digits.module, images, labels, **named)
    bound = evaluate(digits.module, images, labels, query_budget=10**6, **named)
    assert bound.curve["robust_accuracy"].tolist() == free.curve["robust_accuracy"].tolist()


def test_a_budget_that_ends_early_is_flagged(digits):
    result = evaluate(
        digits.module,
        digits.images[:40],
        digits.labels[:40],
        {"name": "pgd", "steps": 20},
        epsilons=[0.05, 0.1, 0.2],
        query_budget=10,
    )
    assert any(flag.startswith("query-budget-exhausted:") for flag in result.flags)


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_any_integer_type_are_taken(digits, kind):
    images, labels = digits.images[:20], digits.labels[:20]
    result = evaluate(digits.module, images, labels.to(kind), "fgsm", epsilons=[0.1])
    plain = evaluate(digits.module, images, labels, "fgsm", epsilons=[0.1])
    assert result.curve.equals(plain.curve)


@dataclass(frozen=True)
class AsksForMore(PGD):
    """States to see labels only, and asks for scores while it prepares itself."""

    access: ClassVar[str] = "decision"

    def prepare(self, preparation):
        preparation.ask(torch.zeros(1, 1, 16, 16), "score")
        return self


@dataclass(frozen=True)
class ComesBackStronger(PGD):
    """States to see labels only, and hands back an attack that sees gradients."""

    access: ClassVar[str] = "decision"

    def prepare(self, preparation):
        return PGD()


@pytest.mark.parametrize("attack", [AsksForMore(), ComesBackStronger()])
def test_preparing_gives_no_more_access_than_was_declared(digits, attack):
    with pytest.raises(AccessDenied):
        evaluate(digits.module, digits.images[:20], digits.labels[:20], attack, epsilons=[0.1])


@dataclass(frozen=True)
class NeverAsked(PGD):
    asks_iterates: ClassVar[bool] = True

    def step(self, problem, state):
        return type(state)(state.x_adv * torch.nan)


def test_iterates_that_are_not_finite_are_an_error_even_when_nobody_asks(digits):
    with pytest.raises(CellError, match="not finite"):
        evaluate(
            digits.module, digits.images[:20], digits.labels[:20], NeverAsked(), epsilons=[0.1]
        )


def test_a_crash_does_not_help_a_model_in_the_ranking(digits):
    def cell(model, attack, epsilons):
        images, labels = digits.images[:20], digits.labels[:20]
        result = evaluate(digits.module, images, labels, "fgsm", epsilons=epsilons)
        about = {
            "dataset": "d",
            "norm": "Linf",
            "model": model,
            "defense": "none",
            "attack": attack,
            "access": "white-box",
            "epsilons": ["0.1"],
            "flags": [],
            "epsilon_values": [0.1],
            "seed": 0,
            "seconds": 1.0,
            "device": "cpu",
            "dtype": "float32",
            "report": {},
            "parameters": 1,
            "key": model + attack,
            "weights_hash": model,
            "leaderboard_epsilon": "0.1",
        }
        records = result.records
        if model == "crashes":
            records = records.assign(broken=[np.array([False])] * len(records))
        return Cell(about, records)

    cells = [
        cell("whole", "fgsm", [0.1]),
        cell("whole", "pgd", [0.1]),
        cell("crashes", "fgsm", [0.1]),
    ]
    board = leaderboard(cells, [Lost("d", "Linf", "crashes", "none", "pgd")])
    assert board["model"].tolist() == ["whole", "crashes"]
    assert board["robust_accuracy"][1] > board["robust_accuracy"][0]
    assert "failed:pgd" in board["flags"][1]
