"""Torch's switches of the process: what the caller has on must not change a number of ours."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Within, torch's switches are as torch starts with them; put back at the end.

    Those that change numbers or what can be differentiated: autocast, inference mode, grad mode,
    anomaly mode, the default type and device, and deterministic algorithms.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_anomaly_enabled():
            stack.enter_context(torch.autograd.set_detect_anomaly(False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_default_dtype())
        stack.enter_context(_any_algorithms())
        yield


@contextmanager
def _default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _any_algorithms() -> Iterator[None]:
    """Deterministic algorithms round otherwise, and some operations have none and would raise."""
    wanted = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        if wanted:
            torch.use_deterministic_algorithms(True, warn_only=only_warns)


@contextmanager
def full_precision() -> Iterator[None]:
    """Within, float32 is float32, and cuDNN takes the same kernels every time."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
