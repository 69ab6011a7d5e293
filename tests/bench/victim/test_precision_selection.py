"""The choice of a copy: what it measures, what it refuses, and that it disturbs nothing."""

import json

import pytest
import torch
from torch import nn

from quintain.bench.api import registry
from quintain.bench.api.defense import InputSpec
from quintain.bench.api.shared.multiply_adds import multiply_adds
from quintain.bench.suite.config import read_suite
from quintain.bench.victim import precision_selection
from quintain.bench.victim.fast_copy import FastCopy, Variant, make_fast_copy
from quintain.bench.victim.precision_selection import PrecisionChoice, choose, recall, time_ratio

CPU = torch.device("cpu")
FASTEST = "bfloat16+channels-last+folded"


@pytest.fixture
def worth_it(monkeypatch):
    """Every module is worth a trial, on a processor that has bfloat16."""
    monkeypatch.setattr(precision_selection, "_WORTHWHILE", 0.0)
    monkeypatch.setattr(precision_selection, "_dtypes", lambda device: ("bfloat16", "float32"))


@pytest.fixture
def ratios(monkeypatch, worth_it):
    """What the clock is to say of each variant."""
    given = {}
    monkeypatch.setattr(
        precision_selection,
        "time_ratio",
        lambda module, copied, x: given.get(str(copied.variant), 1.0),
    )
    return given


def pick(digits, precision="auto", module=None):
    return choose(module or digits.module, digits.images, 1797, CPU, 32, precision)


def test_the_first_clearly_faster_variant_is_chosen(digits, ratios):
    ratios |= {FASTEST: 0.5, "float32+channels-last+folded": 0.4}
    choice = pick(digits)
    assert choice.variant == Variant("bfloat16", channels_last=True, folded=True)
    assert isinstance(choice.network, FastCopy)
    about = {"variant": FASTEST, "ratios": {FASTEST: 0.5}, "refused": {}}
    assert choice.about() == about | {"tolerance": choice.tolerance}
    assert 0 < choice.tolerance < 1


def test_a_choice_can_be_made_again_from_what_is_noted_of_it(digits, ratios):
    ratios |= {FASTEST: 0.5}
    choice = pick(digits)
    again = recall(json.loads(json.dumps(choice.about())), digits.module, digits.images[:16])
    assert again.variant == choice.variant
    assert again.about() == choice.about()
    x = digits.images[:16]
    assert torch.equal(again.network(x), choice.network(x))
    assert recall(pick(digits, "float32").about(), digits.module, x).network is None
    assert recall({"variant": "float8"}, digits.module, x) is None


@pytest.mark.parametrize("functional", [False, True])
def test_multiply_adds_are_counted_however_they_are_called(functional):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 6, 3, groups=2)
            self.last = nn.Linear(6, 5)

        def forward(self, x):
            if functional:
                x = nn.functional.conv2d(x, self.conv.weight, groups=2)
                return x.mean((2, 3)) @ self.last.weight.T
            return self.last(self.conv(x).mean((2, 3)))

    assert multiply_adds(Net(), torch.rand(3, 4, 10, 8)) == 6 * 8 * 6 * 2 * 9 + 30


def test_a_small_gain_is_not_taken(digits, ratios):
    ratios |= {FASTEST: 0.85, "float32+channels-last+folded": 0.95}
    choice = pick(digits)
    assert choice.network is None
    assert choice.variant == Variant()
    assert set(choice.refused.values()) == {"not clearly faster"}
    assert json.loads(json.dumps(choice.about())) == choice.about()


def test_a_variant_that_loses_its_way_is_refused_however_fast(digits, ratios, monkeypatch):
    ratios |= {FASTEST: 0.1, "bfloat16+channels-last": 0.1}
    monkeypatch.setattr(precision_selection, "_ALIKE", 1.0)
    choice = pick(digits)
    assert choice.variant.dtype == "float32"
    assert "not faithful" in choice.refused[FASTEST]


def test_without_much_to_do_no_time_is_taken(digits, monkeypatch):
    monkeypatch.setattr(
        precision_selection, "time_ratio", lambda *_: pytest.fail("a trial was made")
    )
    choice = pick(digits)
    assert choice.variant == Variant()
    assert "too little work" in choice.refused["all"]


def test_the_quickstart_stays_in_float32(monkeypatch):
    """Its tables are checked in, and must come out the same on every machine."""
    monkeypatch.setattr(
        precision_selection, "time_ratio", lambda *_: pytest.fail("a trial was made")
    )
    images = torch.rand(100, 1, 16, 16)
    for one in read_suite("quickstart")[0].models:
        module = registry.bind("models", one.spec)(
            InputSpec((1, 16, 16), 10, (0.5,), (0.25,))
        ).eval()
        assert choose(module, images, len(images), CPU, 128).variant == Variant()
        assert (
            multiply_adds(module, images[:1]) * len(images) < 0.6 * precision_selection._WORTHWHILE
        )


def test_float32_is_the_module_itself(digits, worth_it):
    assert pick(digits, "float32") == PrecisionChoice()


def test_bfloat16_is_taken_untimed(digits, monkeypatch):
    monkeypatch.setattr(
        precision_selection, "time_ratio", lambda *_: pytest.fail("a trial was made")
    )
    assert str(pick(digits, "bfloat16").variant) == FASTEST


def test_what_cannot_be_folded_is_taken_unfolded(digits):
    class ByItsData(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = digits.module

        def forward(self, x):
            return self.inner(x if x.mean() > 0 else -x)

    choice = pick(digits, "bfloat16", ByItsData())
    assert str(choice.variant) == "bfloat16+channels-last"
    assert "graph cannot be read" in choice.refused[FASTEST]


@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_a_model_that_fails_in_bfloat16_stays_as_it_is(digits, ratios, precision):
    class Refusing(nn.Module):
        """Does what bfloat16 has no kernel for."""

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 10)

        def forward(self, x):
            logits = self.head(x.flatten(1))
            if logits.dtype != torch.float32:
                raise RuntimeError("no kernel")
            return logits

    choice = pick(digits, precision, Refusing())
    assert choice.network is None
    assert choice.refused["bfloat16+channels-last"] == "RuntimeError: no kernel"


def test_random_numbers_are_left_as_they_were(digits, worth_it):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = digits.module

        def forward(self, x):
            return self.inner(x + 0.001 * torch.randn_like(x))

    before = torch.get_rng_state()
    pick(digits, module=Noisy())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_ratio_is_a_median_over_rounds(digits):
    durations = iter([4.0, 1.0, 4.0, 2.0, 4.0, 4.0])  # plain, quick, plain, quick, ...
    now, running = 0.0, False

    def clock():
        nonlocal now, running
        now += next(durations) / 80 if running else 0.0
        running = not running
        return now

    x = digits.images[:16]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision_selection, "_ROUNDS", 3)
        ratio = time_ratio(digits.module, make_fast_copy(digits.module, Variant(), x), x, clock)
    assert ratio == pytest.approx(0.5)


def test_multiply_adds_are_counted():
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 10))
    assert multiply_adds(module, torch.rand(2, 3, 4, 4)) == 16 * 8 * 27 + 128 * 10
