"""What the benchmark runs on, and how fast it could be."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ...api.shared.torch_switches import matmul_precision
from .contenders import Job
from .timing import Clock, Spread

Arithmetic = Literal["float32", "tf32", "bfloat16"]

_SIDE = 8192  # large enough for a card to reach its full rate
_PRODUCTS = 10


@dataclass(frozen=True)
class Machine:
    """device: its type. name: of the processor or the card.

    matmul_rates: FLOP/s of matrix products in each arithmetic, on a GPU alone.
    """

    device: str
    name: str
    threads: int
    torch_version: str
    matmul_rates: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, device: torch.device, clock: Clock) -> "Machine":
        """Look at the machine."""
        facts = device.type, _name(device), torch.get_num_threads(), torch.__version__
        if device.type != "cuda":
            return cls(*facts)
        return cls(*facts, {one: matmul_rate(device, clock, one) for one in get_args(Arithmetic)})

    def matmul_rate(self, precision: str) -> float | None:
        """FLOP/s in the arithmetic that a variant such as "bfloat16+folded" computes in."""
        return self.matmul_rates.get(precision.partition("+")[0])


def matmul_rate(device: torch.device, clock: Clock, dtype: Arithmetic, side: int = _SIDE) -> float:
    """FLOP/s of square matrix products: what the device can do at its best."""
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    a, b = torch.rand(2, side, side, device=device).to(kind)
    seconds = []
    with matmul_precision("high" if dtype == "tf32" else "highest"):
        torch.mm(a, b)
        for _ in range(_PRODUCTS):
            began = clock()
            torch.mm(a, b)
            seconds.append(clock() - began)
    return 2.0 * side**3 / Spread.of(seconds).median


def flops_per_step(job: Job) -> float:
    """FLOP that one image needs for one forward pass and its gradient, as torch counts them."""
    x = job.x[:1].clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(job.module(x), job.y[:1]).backward()
    return float(counter.get_total_flops())


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
