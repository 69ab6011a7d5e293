"""Which faster copy of a network the search should use: a short trial on the model at hand."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..api.shared.multiply_adds import multiply_adds
from .decision import margin
from .fast_copy import (
    Dtype,
    FastCopy,
    Precision,
    Refused,
    Variant,
    alike,
    input_gradient,
    make_fast_copy,
)
from .model import Network

_SMALLEST_BATCH = 16
_MULTIPLY_ADDS = 2e9  # of the trial's batch in one forward pass: its rows are as many as that takes
_ROUNDS = 5
_SECONDS = 0.5  # no further round after so much timing
_WORTHWHILE = 1e9  # multiply-adds of one forward pass over all examples; below, plain float32
_CLEARLY_FASTER = 0.8  # of the plain module's time: noise must not decide
_AGREE = 0.9  # of the rows, in the class that comes out
# Median cosine of the input gradients. Of 1,194 digits PGD-20 on a GoogLeNet's copy at 0.956 lost
# 39 predictions and won 24, maybe by chance; a ResNet's copies, above 0.99, lost as many as they
# won.
_ALIKE = 0.97


@dataclass(frozen=True)
class PrecisionChoice:
    """What the search computes its gradients with, and why.

    network: the copy, or None for the module itself. tolerance: by how much its logits' lead of the
    best class over another was seen to be off. ratios: variant -> its time over the plain
    module's. refused: variant -> why it was not taken.
    """

    network: FastCopy | None = None
    tolerance: float = 0.0
    ratios: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def variant(self) -> Variant:
        """What was chosen."""
        return Variant() if self.network is None else self.network.variant

    def open(self, device: torch.device, batch_size: int) -> Network | None:
        """The copy made ready for a search, or None for the module itself."""
        if self.network is None:
            return None
        return Network(self.network, device, batch_size, self.tolerance)

    def about(self) -> dict[str, Any]:
        """Describe it for the manifest."""
        ratios = {name: round(one, 3) for name, one in self.ratios.items()}
        about = {"variant": str(self.variant), "tolerance": self.tolerance}
        return {**about, "ratios": ratios, "refused": dict(self.refused)}


def choose(
    module: nn.Module,
    images: Tensor,
    examples: int,
    device: torch.device,
    batch_size: int,
    precision: Precision = "auto",
) -> PrecisionChoice:
    """Choose the first variant, lowest precision first, that is faithful and clearly faster.

    module: in evaluation mode on the device, weights frozen. images: (n, C, H, W) in [0, 1], some
    of those that will be attacked. examples: how many there are: by their number and the module's
    multiply-adds it is decided whether a trial is worth its second or two. batch_size: rows of the
    search's passes; a small module gains in large batches only. precision: "float32" is the module
    itself, "bfloat16" the first bfloat16 copy that works, untimed.
    """
    if precision == "float32" or not len(images):
        return PrecisionChoice()
    timed = precision == "auto"
    ratios: dict[str, float] = {}
    refused: dict[str, str] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            each = multiply_adds(module, images[:2].to(device))
        except Exception as error:  # the counter steps into the model's own code
            return PrecisionChoice(refused={"all": f"its work cannot be counted: {_line(error)}"})
        if timed and each * examples < _WORTHWHILE:
            return PrecisionChoice(refused={"all": "too little work to gain anything"})
        rows = max(_SMALLEST_BATCH, min(batch_size, int(_MULTIPLY_ADDS / max(each, 1.0))))
        x = images[torch.arange(rows) % len(images)].to(device)
        for variant in _variants(device) if timed else _forced():
            try:
                network = make_fast_copy(module, variant, x)
                tolerance = check_faithful(module, network, x, closely=timed)
            except Exception as error:  # a model may fail in any way in such arithmetic
                refused[str(variant)] = _line(error)
                continue
            if timed:
                ratios[str(variant)] = time_ratio(module, network, x)
                if ratios[str(variant)] > _CLEARLY_FASTER:
                    refused[str(variant)] = "not clearly faster"
                    continue
            return PrecisionChoice(network, tolerance, ratios, refused)
    return PrecisionChoice(None, 0.0, ratios, refused)


def recall(about: Mapping[str, Any], module: nn.Module, images: Tensor) -> PrecisionChoice | None:
    """Make an earlier choice again, as `about` described it; None when it cannot be."""
    known = {str(one): one for one in (Variant(), *_variants(images.device), *_forced())}
    try:
        variant = known[about["variant"]]
        network = None if variant == Variant() else make_fast_copy(module, variant, images)
        ratios, refused = dict(about["ratios"]), dict(about["refused"])
        return PrecisionChoice(network, float(about["tolerance"]), ratios, refused)
    except Exception:  # as in choose; or the description is damaged
        return None


def check_faithful(module: nn.Module, copied: FastCopy, x: Tensor, *, closely: bool) -> float:
    """Refuse a copy that breaks down on x or, when asked closely, tells another direction.

    Returns by how much the copy's logits are off the module's at most: in how far the class
    that the module sees is above the best other.

    Raises: Refused.
    """
    wanted, uphill = input_gradient(module, x)
    y = wanted.argmax(dim=1)
    with copied.arithmetic():
        logits, ours = input_gradient(copied, x, y)
    margins = [margin(one, y, targeted=False) for one in (logits, wanted)]
    off = float((margins[0] - margins[1]).abs().max())
    if not closely:
        return off
    agreement = float((logits.argmax(dim=1) == y).float().mean())
    likeness = alike(ours, uphill)
    if not (agreement >= _AGREE and likeness >= _ALIKE):
        raise Refused(
            f"not faithful: {agreement:.0%} of the classes agree, "
            f"the median cosine of the gradients is {likeness:.3f}"
        )
    return off


def time_ratio(
    module: nn.Module,
    copied: FastCopy,
    x: Tensor,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median over interleaved rounds of the copy's time over the module's, forward and gradient.

    Both must have run before: the first pass of a kernel is slower.
    """
    y = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def seconds(one: nn.Module) -> float:
        begin = clock()
        input_gradient(one, x, y)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        return clock() - begin

    ratios: list[float] = []
    spent = 0.0
    while not ratios or (len(ratios) < _ROUNDS and spent < _SECONDS):
        plain = seconds(module)
        with copied.arithmetic():
            fast = seconds(copied)
        ratios.append(fast / plain)
        spent += plain + fast
    return statistics.median(ratios)


def _variants(device: torch.device) -> Iterator[Variant]:
    """Every variant that the device computes in, the most promising first."""
    for dtype in _dtypes(device):
        yield Variant(dtype, channels_last=True, folded=True)
        yield Variant(dtype, channels_last=True)


def _forced() -> Iterator[Variant]:
    for channels_last in (True, False):
        yield Variant("bfloat16", channels_last, folded=True)
        yield Variant("bfloat16", channels_last)


def _dtypes(device: torch.device) -> tuple[Dtype, ...]:
    if device.type == "cuda":
        return ("bfloat16", "tf32") if torch.cuda.is_bf16_supported(False) else ("tf32",)
    if device.type == "cpu":
        bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # else it is emulated, and crawls
        return ("bfloat16", "float32") if bfloat16 else ("float32",)
    return ()


def _line(error: Exception) -> str:
    first = str(error).partition("\n")[0]
    return first if isinstance(error, Refused) else f"{type(error).__name__}: {first}"
