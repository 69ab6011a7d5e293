"""Torch's switches of the process: what the caller has on must not change a number of ours."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
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
        dtype = switched(torch.get_default_dtype, torch.set_default_dtype, torch.float32)
        stack.enter_context(dtype)
        stack.enter_context(_any_algorithms())
        yield


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
    cudnn = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with matmul_precision("highest"), cudnn:
        yield


def matmul_precision(precision: str) -> AbstractContextManager[None]:
    """Within, matrix products of float32 are as precise as asked for: "highest", "high", ..."""
    return switched(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, precision
    )


def number_of_threads(count: int) -> AbstractContextManager[None]:
    """Within, torch has so many threads on a CPU."""
    return switched(torch.get_num_threads, torch.set_num_threads, count)


@contextmanager
def switched(read: Callable[[], T], write: Callable[[T], object], value: T) -> Iterator[None]:
    """Within, a switch of the process has another value; afterwards what it had."""
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)
