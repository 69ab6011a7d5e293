"""Models that mislead attacks are flagged; those that do not are not."""

import pandas as pd
import pytest
import torch
from masked_models import MASKED, ClippedLogits, Negated, OneHotRandom, WrongSurrogate
from torch import nn
from torch.nn import functional

from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadData, CellError
from quintain.bench.api.rng import noise
from quintain.bench.datasets.in_memory import TensorImages
from quintain.bench.engine.diagnostics.model_checks import flags_of_model
from quintain.bench.victim.model import Network, frozen
from quintain.bench.victim.traits import Adaptation

LIKELY = """
from torch import nn
from quintain.bench.api import registry

@registry.model("likely")
def likely(inputs):
    channels, height, width = inputs.shape
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * height * width, inputs.n_classes), nn.Softmax(1)
    )
"""
EXPECTED = {
    "QuantisedInput": "vanishing-gradients",
    "OneHotNaN": "non-finite-gradients",
    "OneHotRandom": "rounded-outputs",
    "OneHotNegated": "misleading-gradients",
    "OneHotFlat": "probability-outputs",
    "Negated": "misleading-gradients",
    "OtherClass": "inaccurate-gradients",
    "RandomGradient": "inaccurate-gradients",
    "OtherNetwork": "inaccurate-gradients",
    "WrongSurrogate": "misleading-gradients",
    "Saturated": "vanishing-gradients",
    "GradModeSwitch": "grad-mode-dependent-logits",
    "BatchStatistics": "batch-dependent-logits",
    "InputHashNoise": "inaccurate-gradients",
    "HiddenNoise": "unrepeatable-logits",
    "DetachedBranch": "inaccurate-gradients",
    "RoundedLogits": "rounded-outputs",
    "ClippedLogits": "rounded-outputs",
    "Softmaxed": "probability-outputs",
    "SaturatingPixels": "vanishing-gradients",
    "Rippled": "misleading-gradients",
}


def names(flags):
    return {one.name for one in flags}


def flags_of(module, digits, attack="fgsm", count=40, **more):
    images, labels = digits.images[:count], digits.labels[:count]
    return evaluate(module, images, labels, attack, epsilons=[0.05], **more).flags


def test_every_masked_model_is_in_the_list():
    assert set(EXPECTED) == {one.__name__ for one in MASKED}
    assert len(MASKED) >= 16


@pytest.mark.parametrize("kind", MASKED, ids=lambda kind: kind.__name__)
def test_a_masked_model_is_flagged(kind, digits):
    if kind.__name__ == "OneHotNaN":  # what is not finite fails a cell, which is more than a flag
        with pytest.raises(CellError, match="the model's gradient is not finite"):
            flags_of(kind(digits.module), digits)
        return
    assert EXPECTED[kind.__name__] in names(flags_of(kind(digits.module), digits))


@pytest.mark.parametrize("attack", ["fgsm", "square", "rays"])
def test_an_honest_network_is_not(digits, attack):
    spec = attack if attack == "fgsm" else {"name": attack, "steps": 5}
    assert flags_of(digits.module, digits, spec) == ()


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_few_images_raise_no_flags_by_chance(digits, count):
    assert flags_of(digits.module, digits, count=count) == ()


def test_nor_do_two_classes_and_flat_images(digits):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pooled = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        module = nn.Sequential(*pooled, nn.Flatten(), nn.LazyLinear(2))
        module(torch.zeros(1, 1, 8, 8))
    images = torch.linspace(0, 1, 30)[:, None, None, None].expand(30, 1, 8, 8).contiguous()
    labels = module(images).argmax(1)
    assert evaluate(module, images, labels, "fgsm", epsilons=[0.01]).flags == ()


def test_attacks_that_follow_no_gradient_hear_nothing_of_it(digits):
    spec = {"name": "square", "steps": 5}
    assert flags_of(Negated(digits.module), digits, spec) == ()
    assert names(flags_of(OneHotRandom(digits.module), digits, spec)) == {
        "probability-outputs",
        "rounded-outputs",
    }


class Jittered(nn.Module):
    """Random, and says so."""

    stochastic = True

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x + 0.05 * noise(x).normal(x.shape[1:], "jitter"))


class Steps(nn.Module):
    differentiable = False

    def forward(self, x):
        return (x * 7).round() / 7


class Rejecting(nn.Module):
    """Rejects where it is not sure."""

    rejects = True

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        logits = self.inner(x)
        return torch.cat([logits, torch.full_like(logits[:, :1], 1.0)], 1)


def test_declared_defenses_have_honest_reasons(digits):
    for module in (
        Jittered(digits.module),
        nn.Sequential(Steps(), digits.module),
        nn.Sequential(Steps(), Jittered(digits.module)),
        Rejecting(digits.module),
    ):
        assert flags_of(module, digits) == ()


def test_a_naive_attack_is_told_that_it_is_blind_and_no_more(digits):
    module = nn.Sequential(Steps(), digits.module)
    blind = {"no-progress", "vanishing-gradients"}
    assert names(flags_of(module, digits, adaptive=False)) == blind
    assert names(flags_of(WrongSurrogate(digits.module), digits, adaptive=False)) == blind


def test_the_passes_of_the_checks_are_not_the_attacks(digits):
    images, labels = digits.images[:20], digits.labels[:20]
    settings = {"epsilons": [1e-6], "search": "exhaustive"}
    result = evaluate(digits.module, images, labels, {"name": "pgd", "steps": 3}, **settings)
    active = result.records["under_attack"]
    assert set(result.records["forward"][active]) == {4}
    assert set(result.records["backward"][active]) == {3}


class Counted(nn.Module):
    """Counts the rows that it is asked about."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.rows = inner, 0

    def forward(self, x):
        self.rows += len(x)
        return self.inner(x)


def test_flags_that_are_known_cost_no_more_passes(digits):
    images, labels = TensorImages(digits.images[:32]), digits.labels[:32]
    known = {}

    def look(*, gradients):
        before = module.rows
        arguments = network, images, labels, torch.arange(32), Adaptation()
        return flags_of_model(*arguments, gradients=gradients, known=known), module.rows - before

    with frozen(Counted(ClippedLogits(digits.module))) as module:
        network = Network(module, torch.device("cpu"), 32)
        flags, rows = look(gradients=True)
        assert flags == ("rounded-outputs:100%",)
        assert rows == 6 * 24 + 2 * 16  # and 24 of them backwards
        assert look(gradients=True) == (flags, 0)
        assert look(gradients=False) == (flags, 24 + 2 * 16)


def test_the_flags_of_a_network_are_on_all_its_rows(write_suite, quintain, tmp_path):
    suite = write_suite(
        plugins='["likely.py"]',
        models='[[models]]\nname = "likely"\n',
        attacks='[[attacks]]\nname = "fgsm"\n[[attacks]]\nname = "pgd"\nsteps = 2\n',
    )
    (tmp_path / "likely.py").write_text(LIKELY)
    answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu", "--verbose")
    assert answer.code == 0, answer.err
    table = pd.read_csv(tmp_path / "out" / "tradeoff.csv", keep_default_na=False)
    flags = table.drop_duplicates("attack").set_index("attack")["flags"]
    assert flags["fgsm"] == flags["pgd"] == flags["worst-case"] == "probability-outputs:100%"
    assert "- likely x none x pgd: probability-outputs:100%" in answer.out


def test_a_lone_output_is_refused():
    lone = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    images, labels = torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)
    with pytest.raises(BadData, match=r"returns 1 logit .* at least 2 classes") as error:
        evaluate(lone, images, labels, "fgsm", epsilons=[0.9])
    assert "\n" not in str(error.value)


MODELS = {
    "alexnet": {"width": 0.125},
    "googlenet": {"width": 0.125},
    "resnet": {"depth": 8, "width": 0.5},
    "small-cnn": {"width": 0.25},
    "wide-resnet": {"depth": 10, "width": 0.5},
}


def enlarged(digits):
    """(200, 1, 16, 16): the smallest that all registered models take."""
    return functional.interpolate(digits.images, scale_factor=2)


def trained(name, digits, *, adversarially):
    """A registered model that reads enlarged digits after a short training."""
    x, y = enlarged(digits), digits.labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spec = InputSpec((1, 16, 16), 10, (0.3,), (0.37,))
        module = registry.bind("models", {"name": name, **MODELS[name]})(spec)
        optimizer = torch.optim.Adam(module.parameters(), 3e-3)
        for _ in range(12):
            for batch in torch.randperm(len(x)).split(40):
                given = x[batch].clone().requires_grad_()
                if adversarially:
                    loss = functional.cross_entropy(_logits(module(given)), y[batch])
                    slope = torch.autograd.grad(loss, given)[0]
                    given = (x[batch] + 0.05 * slope.sign()).clamp(0, 1)
                optimizer.zero_grad()
                functional.cross_entropy(_logits(module(given)), y[batch]).backward()
                optimizer.step()
    return module.eval()


def _logits(answer):
    return answer if isinstance(answer, torch.Tensor) else answer[0]


@pytest.mark.parametrize("adversarially", [False, True])
@pytest.mark.parametrize(
    "name", ["small-cnn", *(pytest.param(one, marks=pytest.mark.slow) for one in MODELS)]
)
def test_no_registered_model_is_flagged(name, digits, adversarially):
    module = trained(name, digits, adversarially=adversarially)
    images, labels = enlarged(digits)[:60], digits.labels[:60]
    attack = {"name": "pgd", "steps": 5}
    result = evaluate(module, images, labels, attack, epsilons=[0.05], precision="float32")
    assert result.curve["clean_accuracy"].item() > 0.6
    assert result.flags == ()
