"""What the benchmark runs on, and how fast it could be."""

import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from .contenders import Job
from .timing import Clock, Spread

_SIDE = 8192  # large enough for a card to reach its full rate
_PRODUCTS = 10


@dataclass(frozen=True)
class Machine:
    """device: its type. name: of the processor or the card. matmul_rate: FLOP/s, on a GPU alone."""

    device: str
    name: str
    threads: int
    torch_version: str
    matmul_rate: float | None = None

    @classmethod
    def of(cls, device: torch.device, clock: Clock) -> "Machine":
        """Look at the machine."""
        facts = device.type, _name(device), torch.get_num_threads(), torch.__version__
        return cls(*facts, matmul_rate(device, clock) if device.type == "cuda" else None)


def matmul_rate(device: torch.device, clock: Clock, side: int = _SIDE) -> float:
    """FLOP/s of square float32 matrix products, as the attacks' own settings have them."""
    a, b = torch.rand(2, side, side, device=device)
    torch.mm(a, b)
    seconds = []
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
