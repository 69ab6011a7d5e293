"""The arithmetic of a training step: its precision, and how a loss becomes a step."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ....bench.api.errors import BadParameter

PrecisionName = Literal["float32", "bfloat16", "float16"]

_TYPES: dict[PrecisionName, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Arithmetic:
    """Forward and backward passes by autocast; weights and their steps in float32.

    With float16, which only CUDA has, losses are scaled up before the backward pass, and a step
    whose gradients overflow is left out (Micikevicius et al. 2017, arXiv:1710.03740). Nothing here
    waits for the device, given an optimizer that is fused there.

    Raises: BadParameter for a precision that the device does not have.
    """

    def __init__(self, precision: PrecisionName, device: torch.device) -> None:
        cuda = device.type == "cuda"
        if precision == "float16" and not cuda:
            raise BadParameter(
                f"precision = 'float16' is for CUDA devices; use 'bfloat16' on {device.type}"
            )
        if precision == "bfloat16" and cuda and not torch.cuda.is_bf16_supported():
            raise BadParameter(f"precision = 'bfloat16' is not supported by {device}")
        self._device = device.type
        self._type = _TYPES.get(precision)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")

    def cast(self) -> AbstractContextManager[object]:
        """The passes within are made in this precision."""
        if self._type is None:
            return nullcontext()
        return torch.autocast(self._device, self._type)

    def descend(
        self,
        loss: Tensor,
        optimizer: torch.optim.Optimizer,
        weights: Iterable[Tensor],
        clip: float | None,
    ) -> None:
        """Backward pass and step, the gradient clipped to an L2 norm of `clip`."""
        torch.autograd.backward(self.scaler.scale(loss))
        if clip is not None:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(weights, clip)
        self.scaler.step(optimizer)
        self.scaler.update()


@contextmanager
def compiled(model: nn.Module, wanted: bool) -> Iterator[None]:
    """The model's own calls go through torch.compile for the while, if wanted.

    Names of parameters and the module's identity stay.

    Raises: BadParameter when it cannot be compiled here.
    """
    if not wanted:
        yield
        return

    def call(*given: Any, **named: Any) -> Any:  # older releases skip torch's own `_call_impl`
        return model._call_impl(*given, **named)

    model._compiled_call_impl = torch.compile(call)
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
        raise BadParameter(
            f"compile = true, but torch.compile failed here: {type(error).__name__}: {reason}"
        ) from error
    finally:
        model._compiled_call_impl = None
