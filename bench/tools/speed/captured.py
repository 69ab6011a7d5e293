"""The floor on a GPU: the bare loop's step, captured by hand as a CUDA graph and replayed."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import metadata

import torch
from torch import Tensor, nn

from ...engine.cuda_graphs import Capture, capture_graph
from ...victim.fast_copy import Precision
from ...victim.model import frozen
from ...victim.precision_selection import choose
from .contenders import Job, Outcome, ascend

_WARM_UP = 3  # steps on another stream, as CUDA graphs want: kernels are chosen, memory is taken


@dataclass(frozen=True)
class CapturedLoop:
    """Forward, backward, step, and nothing else, without a host that launches kernels.

    The gradients come from the very copy that the harness would use at this precision, so that what
    is compared is the engine alone. Copying and capturing are done at the first call for a network
    and not again: the floor is what the steps take. A last batch of another size has its own.

    capture: how a step is captured; tests on a CPU put another in place of the CUDA graph.
    """

    precision: Precision
    capture: Capture = capture_graph
    one_price: bool = True
    counts: bool = True
    _ready: dict[tuple[nn.Module, torch.Size], "_Step"] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"bare loop, captured, {self.precision}"

    @property
    def version(self) -> str:
        """Of torch."""
        return metadata.version("torch")

    def attack(self, job: Job, epsilons: Sequence[float]) -> Outcome:
        """Epsilon after epsilon, batch after batch."""
        with frozen(job.module):
            steps = [self._step(job, x, y) for x, y in job.batches()]
            with steps[0].arithmetic():
                found = [
                    torch.cat(
                        [
                            step.run(x, y, epsilon, job)
                            for step, (x, y) in zip(steps, job.batches(), strict=True)
                        ]
                    )
                    for epsilon in epsilons
                ]
        passes = float(job.steps * len(epsilons))
        return Outcome(found.__getitem__, (passes, passes), steps[0].variant)

    def _step(self, job: Job, x: Tensor, y: Tensor) -> "_Step":
        """The step captured for such a batch."""
        key = job.module, x.shape
        if key not in self._ready:
            choice = choose(job.module, job.x, len(job.x), x.device, job.batch_size, self.precision)
            module = choice.network or job.module
            self._ready[key] = _Step(module, str(choice.variant), x, y, self.capture)
        return self._ready[key]


class _Step:
    """One step on memory that stays where it is."""

    def __init__(
        self, module: nn.Module, variant: str, x: Tensor, y: Tensor, capture: Capture
    ) -> None:
        self.module, self.variant = module, variant
        self.arithmetic = getattr(module, "arithmetic", nullcontext)
        self.x_adv, self.lower, self.upper = x.clone(), x.clone(), x.clone()
        self.size = torch.zeros((), device=x.device)
        self.y = y.clone()
        with self.arithmetic():
            if x.is_cuda:
                self._warm_up(x.device)
            self.replay: Callable[[], None] = capture(self._take)

    def _warm_up(self, device: torch.device) -> None:
        aside, present = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        aside.wait_stream(present)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._take()
        present.wait_stream(aside)

    def run(self, x: Tensor, y: Tensor, epsilon: float, job: Job) -> Tensor:
        """PGD from a random start, as the bare loop's."""
        self.lower.copy_((x - epsilon).clamp(min=0.0))
        self.upper.copy_((x + epsilon).clamp(max=1.0))
        start = torch.empty_like(x).uniform_(-epsilon, epsilon).add_(x)
        self.x_adv.copy_(start.clamp_(self.lower, self.upper))
        self.y.copy_(y)
        self.size.fill_(job.step_size * epsilon)
        for _ in range(job.steps):
            self.replay()
        return self.x_adv.clone()

    def _take(self) -> None:
        gradient = ascend(self.module, self.x_adv.detach(), self.y)
        moved = self.x_adv.addcmul(gradient.sign_(), self.size)
        self.x_adv.copy_(moved.clamp_(self.lower, self.upper))
