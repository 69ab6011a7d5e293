"""Faster copies of a network for the search: bfloat16, channels last, batch norm folded.

A copy only proposes: gradients may come from it, scores, labels and predictions never do. It is
then no matter of trust but of speed: an attack on a poor copy finds less.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .batchnorm_folding import CannotFold, fold

Dtype = Literal["float32", "tf32", "bfloat16"]
_MULTIPLIERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SAME_LOGITS = 1e-4  # relative; folding alone stays below 1e-6 on the networks tried
_SAME_DIRECTION = 0.999
_COMPARED = 8  # images
Precision = Literal["auto", "float32", "bfloat16"]


class Refused(Exception):
    """Why a copy is not to be had, or not to be used."""


@dataclass(frozen=True)
class Variant:
    """How a copy computes. The plain module is Variant().

    dtype: of the matrix products; "tf32" exists on CUDA only. channels_last: memory order of images
    and weights. folded: batch normalisation done by the layer before it.
    """

    dtype: Dtype = "float32"
    channels_last: bool = False
    folded: bool = False

    def __str__(self) -> str:
        parts = [str(self.dtype)]
        parts += ["channels-last"] if self.channels_last else []
        parts += ["folded"] if self.folded else []
        return "+".join(parts)


class FastCopy(nn.Module):
    """A copy that takes (B, C, H, W) float32 and returns float32 logits (B, K).

    In bfloat16 only convolutions and matrix products, and what follows them, are: the images and
    their normalisation stay float32, since bfloat16 has eight bits and 1/255 is the eighth.
    """

    input_dtype = torch.float32

    def __init__(self, module: nn.Module, variant: Variant) -> None:
        super().__init__()
        self.module = module
        self.variant = variant
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits in float32, with a gradient to x."""
        if self.variant.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        reduced = self.variant.dtype == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=reduced, cache_enabled=False):
            logits: Tensor = self.module(x)
        return logits.float()

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Wrap forward and backward passes: TF32 is a switch of the process, not of a tensor."""
        if self.variant.dtype != "tf32":
            yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            with torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=True
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(before)


def make_fast_copy(module: nn.Module, variant: Variant, images: Tensor) -> FastCopy:
    """Copy a module of float32 weights. It is itself left as it is.

    images: (B, C, H, W) in [0, 1] on the module's device, real ones: what folding must not change.

    Raises: Refused when the module cannot be copied, or folding it cannot be proven right.
    """
    if any(one.is_floating_point() and one.dtype != torch.float32 for one in module.parameters()):
        raise Refused("its weights are not all float32")
    if variant.folded:
        made = _folded(module, images)
    else:
        try:
            made = copy.deepcopy(module)
        except Exception as error:  # a module may hold anything: locks, open files, graphs
            raise Refused(f"it cannot be copied: {type(error).__name__}: {error}") from error
    if variant.channels_last:
        made = made.to(memory_format=torch.channels_last)
    if variant.dtype == "bfloat16":
        for one in made.modules():  # autocast would convert them again in each pass
            if type(one) in _MULTIPLIERS:
                one.to(torch.bfloat16)
    return FastCopy(made, variant)


def input_gradient(module: nn.Module, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and the cross-entropy's gradient (B, C, H, W) at x, both detached.

    y: (B,), by default the classes that the module itself sees.

    Raises: Refused when the logits are not (B, K), finite, and differentiable.
    """
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = module(x)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
            raise Refused("it does not return logits (B, K)")
        if not logits.requires_grad or not logits.isfinite().all():
            raise Refused("its logits are not finite, or carry no gradient")
        y = logits.argmax(dim=1) if y is None else y
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)
    return logits.detach(), gradient


def alike(a: Tensor, b: Tensor) -> float:
    """Median over the rows of the cosine between two gradients; 1 where both are the same."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    lengths = (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-300)
    cosine = (a * b).sum(dim=1) / lengths
    return float(cosine.masked_fill((a == b).all(dim=1), 1.0).median())


def _folded(module: nn.Module, images: Tensor) -> nn.Module:
    """Fold, and compare with the module on batches of two sizes.

    The graph proves what is in it. What tracing may have lost, random numbers or a graph that was
    cut on purpose, shows in the logits or in the gradient.
    """
    images = images[:_COMPARED]
    try:
        made = fold(module, images).requires_grad_(False)
    except CannotFold as error:
        raise Refused(f"not folded: {error}") from error
    for x in (images, images[: len(images) // 2 + 1].flip(-1)):
        wanted, uphill = input_gradient(module, x)
        got, ours = input_gradient(made, x, wanted.argmax(dim=1))
        if not (got - wanted).norm() <= _SAME_LOGITS * wanted.norm():
            raise Refused("not folded: the logits would change")
        if not alike(ours, uphill) >= _SAME_DIRECTION:
            raise Refused("not folded: the gradients would change")
    return made
