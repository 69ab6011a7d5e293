"""Models in float64 and half precision: asked in their own dtype, which the records state."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn

from quintain.bench import evaluate
from quintain.bench.api.shared.module_state import dtype_of
from quintain.bench.victim.model import Network

CPU = torch.device("cpu")
DTYPES = [torch.float64, torch.float16, torch.bfloat16]


def attacked(digits, module, attack=None, **named):
    attack = attack or {"name": "pgd", "steps": 5}
    settings = {"epsilons": [0.02, 0.05, 0.1, 0.2]} | named
    return evaluate(module, digits.images[:24], digits.labels[:24], attack, **settings)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("attack", ["fgsm", "deepfool", "square"])
def test_a_model_in_another_dtype_is_attacked_in_it(digits, dtype, attack):
    module = copy.deepcopy(digits.module).to(dtype)
    spec = {"name": attack, "steps": 20} if attack != "fgsm" else attack
    result = attacked(digits, module, spec)
    assert result.dtype == result.model_dtype == str(dtype).removeprefix("torch.")
    assert {one.dtype for one in module.parameters()} == {dtype}
    with torch.no_grad():
        own = module(digits.images[:24].to(dtype)).argmax(1)
        fooled = module(result.adversarials(0.2).to(dtype)).argmax(1)
    assert result.records["clean_prediction"].tolist() == own.tolist()
    broken = torch.tensor([one[3] for one in result.records["broken"]])
    assert bool((fooled[broken] != digits.labels[:24][broken]).all())
    assert broken.sum() > 4


def test_float64_logits_are_not_rounded_before_the_decision():
    class Near(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x):
            right = self.one + 1e-12 * (x.flatten(1).mean(1) - 0.5)
            return torch.stack([self.one.expand(len(x)), right], 1)

    x = torch.full((2, 1, 2, 2), 0.6)
    result = evaluate(Near(), x, torch.ones(2, dtype=torch.long), "fgsm", epsilons=[0.05, 0.2])
    assert result.curve["clean_accuracy"][0] == 1.0
    assert result.curve["robust_accuracy"].tolist() == [1.0, 0.0]


def test_what_an_attack_sees_of_any_model_is_float32(digits):
    seen = []

    class Looks:
        access = "white-box"

        def run(self, problem):
            answer = problem.victim.gradient(problem.x, lambda logits: logits[:, 0])
            x = problem.x.clone().requires_grad_()
            logits = problem.victim.differentiable(x)
            logits.sum().backward()
            scores = problem.victim.scores(problem.x)
            seen.extend([answer.gradient, answer.loss, answer.logits, logits, x.grad, scores])
            return problem.x

    attacked(digits, copy.deepcopy(digits.module).double(), Looks())
    assert {one.dtype for one in seen} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, *DTYPES])
def test_the_dtype_of_a_module(dtype):
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(dtype)
    assert dtype_of(module) == dtype
    mixed = nn.Sequential(module, nn.Linear(2, 2).to(torch.float32))
    assert dtype_of(mixed) == torch.float32  # it casts by itself, or cannot be run at all
    assert dtype_of(nn.Flatten()) == torch.float32
    assert Network(module.eval(), CPU, 16).dtype == dtype


def test_the_records_of_a_suite_state_the_dtype(quintain, write_suite, tmp_path):
    (tmp_path / "exact.py").write_text(
        "from torch import nn\n"
        "def make(inputs):\n"
        "    channels, height, width = inputs.shape\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width,"
        " inputs.n_classes)).double()\n"
        "make.brings_weights = lambda parameters: True\n"
    )
    models = '[[models]]\nname = "exact.py:make"\n'
    suite = write_suite(models=models, defenses="", attacks='[[attacks]]\nname = "fgsm"\n')
    answer = quintain("run", suite, "--out", tmp_path / "run", "--device", "cpu")
    assert answer.code == 0, answer.err
    table = pd.read_csv(tmp_path / "run" / "tradeoff.csv")
    assert set(table["dtype"][table["attack"] == "fgsm"]) == {"float64"}
