import copy

import pytest
import torch
from builders import linear
from torch import nn

from quintain.bench.api.errors import BadParameter
from quintain.defenses.none import Undefended
from quintain.defenses.training.adversarial_training import AdversarialTraining
from quintain.defenses.training.loop.amp import Arithmetic, compiled
from quintain.defenses.training.loop.inner_attack import Adversary
from quintain.defenses.training.loop.objective import Batch

CPU = torch.device("cpu")


class Types(nn.Module):
    """A linear network that notes in what type its products come."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(36, 2)
        self.seen = []

    def forward(self, x):
        out = self.layer(x.flatten(1))
        self.seen.append((self.training, torch.is_grad_enabled(), out.dtype))
        return out


def quick(**named):
    return {"epochs": 3, "batch_size": 20, "augmentation": "none", **named}


def test_passes_are_bfloat16_and_predictions_and_weights_float32(training, stripes):
    defense = AdversarialTraining(
        **quick(precision="bfloat16"), method="fgsm", epsilon=0.05, validation_steps=2
    )
    trained = defense.fit(Types(), training(*stripes))
    kinds = {}
    for learning, grad, kind in trained.model.seen:
        kinds.setdefault((learning, grad), set()).add(kind)
    assert kinds == {
        (True, True): {torch.bfloat16},  # the step
        (False, True): {torch.bfloat16},  # the adversary
        (False, False): {torch.float32},  # predictions
    }
    assert trained.model.layer.weight.dtype == torch.float32
    assert trained.history[-1]["robust_validation_accuracy"] == 1.0


def test_bfloat16_learns_as_float32_does(training, stripes):
    def fit(**named):
        return Undefended(**quick(**named)).fit(Types(), training(*stripes))

    half, whole = fit(precision="bfloat16"), fit()
    assert not torch.equal(half.model.layer.weight, whole.model.layer.weight)
    torch.testing.assert_close(half.model.layer.weight, whole.model.layer.weight, rtol=0, atol=0.02)
    assert half.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], abs=0.01)


def test_float16_needs_cuda(training, stripes):
    with pytest.raises(BadParameter) as caught:
        Undefended(**quick(precision="float16")).fit(Types(), training(*stripes))
    line = "precision = 'float16' is for CUDA devices; use 'bfloat16' on cpu"
    assert str(caught.value) == line


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_scaled_loss_gives_the_same_step_and_an_overflow_none(clip):
    def step(scaler, factor=1.0):
        torch.manual_seed(0)
        layer = nn.Linear(4, 3)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
        arithmetic = Arithmetic("float32", CPU)
        arithmetic.scaler = scaler
        for _ in range(2):
            optimizer.zero_grad()
            loss = factor * nn.functional.cross_entropy(
                layer(torch.ones(5, 4)), torch.arange(5) % 3
            )
            arithmetic.descend(loss, optimizer, list(layer.parameters()), clip)
        return layer.weight.detach()

    plain = step(torch.amp.GradScaler("cpu", enabled=False))
    scaled = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    torch.testing.assert_close(step(scaled), plain)
    over = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    torch.manual_seed(0)
    before = nn.Linear(4, 3).weight
    assert torch.equal(step(over, factor=float("inf")), before)
    assert over.get_scale() == 2.0**8  # halved at each of two overflows


def test_the_adversary_goes_the_same_way_however_the_loss_is_scaled(monkeypatch):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    x, y = torch.rand(8, 1, 6, 6), torch.arange(8) % 3
    for norm in ("Linf", "L2", "L1"):
        found = []
        for scale in (1.0, 2.0**10):
            monkeypatch.setattr(
                "quintain.defenses.training.loop.inner_attack.GRADIENT_SCALE", scale
            )
            batch = Batch(x, y, torch.arange(8), 0.0, torch.Generator().manual_seed(1))
            found.append(Adversary(norm, 0.1, 3, 0.5).perturb(model, batch))
        assert torch.equal(*found)


def test_channels_last_weights_stay_so(training, stripes):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(128, 2)
    ).to(memory_format=torch.channels_last)
    kept = Undefended(**quick(ema=0.9)).fit(model, training(*stripes)).model
    assert kept[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert not kept[1].weight.is_contiguous()


def test_a_network_that_cannot_be_compiled_is_one_clear_line(training, stripes, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here\nand a long story")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call: compile_(call, backend=broken))
    network = linear(inputs=36)
    with pytest.raises(BadParameter) as caught:
        Undefended(**quick(compile=True)).fit(network, training(*stripes))
    line = str(caught.value)
    assert line.startswith("compile = true, but torch.compile failed here: ")
    assert "no compiler here" in line
    assert "\n" not in line
    assert network._compiled_call_impl is None


def test_a_compiled_network_trains_as_it_would_and_is_itself_again(training, stripes, monkeypatch):
    """With a compiler that hands the graph back: what is tested is how it is called."""
    graphs = []

    def noting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call: compile_(call, backend=noting))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2))
    other = copy.deepcopy(model)
    one = Undefended(**quick(compile=True)).fit(model, training(*stripes))
    two = Undefended(**quick()).fit(other, training(*stripes))
    assert graphs
    assert one.model._compiled_call_impl is None
    torch.testing.assert_close(one.model.state_dict(), two.model.state_dict())


def test_other_errors_pass_through_compilation():
    with pytest.raises(ZeroDivisionError), compiled(nn.Linear(1, 1), wanted=True):
        _ = 1 / 0


@pytest.mark.slow
def test_torchs_own_compiler_learns_as_well(training, stripes):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    )
    other = copy.deepcopy(model)
    defense = {"method": "fgsm", "epsilon": 0.05, "validation_steps": 2}
    one = AdversarialTraining(**quick(compile=True), **defense).fit(model, training(*stripes))
    two = AdversarialTraining(**quick(), **defense).fit(other, training(*stripes))
    assert one.history[-1]["loss"] == pytest.approx(two.history[-1]["loss"], rel=0.05)
