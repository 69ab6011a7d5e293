"""Whatever the caller has switched on: the numbers are the model's own, and it stays on."""

from contextlib import contextmanager

import pytest
import torch

from quintain.bench import evaluate
from quintain.bench.api.errors import CellError
from quintain.bench.api.shared.torch_switches import torch_defaults
from quintain.bench.victim.model import frozen

STATE = {
    "grad": torch.is_grad_enabled,
    "inference": torch.is_inference_mode_enabled,
    "autocast": lambda: torch.is_autocast_enabled("cpu"),
    "anomaly": torch.is_anomaly_enabled,
    "dtype": torch.get_default_dtype,
    "device": lambda: str(torch.get_default_device()),
    "deterministic": torch.are_deterministic_algorithms_enabled,
    "warn only": torch.is_deterministic_algorithms_warn_only_enabled,
    "matmul": torch.get_float32_matmul_precision,
    "cudnn": lambda: (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
}


@contextmanager
def setting(get, put, value):
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SWITCHED = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "float64 by default": lambda: setting(
        torch.get_default_dtype, torch.set_default_dtype, torch.float64
    ),
    "meta by default": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "bfloat16 products": lambda: setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True, check_nan=True),
}


def state():
    return {name: get() for name, get in STATE.items()}


@pytest.fixture(scope="module")
def plain(digits):
    return attacked(digits)


def attacked(digits, count=20, module=None):
    return evaluate(
        digits.module if module is None else module,
        digits.images[:count],
        digits.labels[:count],
        ["deepfool", {"name": "pgd", "steps": 5}],
        epsilons=[0.02, 0.05, 0.1],
    )


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", SWITCHED)
def test_numbers_and_state_are_as_without(digits, plain, name):
    with SWITCHED[name]():
        before = state()
        result = attacked(digits)
        assert state() == before
    assert result.records.equals(plain.records)
    assert torch.equal(result.adversarials(0.05), plain.adversarials(0.05))


@pytest.mark.parametrize("name", ["autocast", "inference mode", "float64 by default"])
def test_the_state_comes_back_after_an_error_too(digits, name):
    class Breaks(torch.nn.Module):
        def forward(self, x):
            return torch.full((len(x), 10), torch.nan)

    with SWITCHED[name]():
        before = state()
        with pytest.raises(CellError):
            attacked(digits, module=Breaks())
        assert state() == before


def test_a_model_and_images_made_in_inference_mode_are_taken(digits, plain):
    with torch.inference_mode():
        module = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2, 1),
            torch.nn.BatchNorm2d(32), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(512, 10),
        )  # fmt: skip
        module.load_state_dict(digits.module.state_dict())
        images, labels = digits.images[:20].clone(), digits.labels[:20].clone()
        assert module[0].weight.is_inference()
        assert images.is_inference()
        result = evaluate(
            module, images, labels, ["deepfool", {"name": "pgd", "steps": 5}],
            epsilons=[0.02, 0.05, 0.1],
        )  # fmt: skip
    assert result.records.equals(plain.records)


def test_frozen_modules_are_run_by_torchs_defaults(digits):
    with torch.autocast("cpu", torch.bfloat16), frozen(digits.module):
        assert digits.module(digits.images[:2]).dtype == torch.float32
    with torch.inference_mode(), torch_defaults():
        assert torch.is_grad_enabled()
        assert not torch.ones(1).is_inference()
