"""Who is measured: quintain, a bare loop, and other libraries, all with the same face."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...api import registry
from ...api.progress import Silent
from ...api.threat import Epsilon
from ...datasets.in_memory import TensorImages
from ...engine.adversarials import InMemoryStore
from ...engine.cascade import CascadeRunner
from ...engine.cell import CHECK_EVERY
from ...engine.config import AttackStage, CellConfig
from ...engine.loop import AttackInputs
from ...evaluate_model import evaluate
from ...victim.fast_copy import Precision
from ...victim.model import Network, frozen
from ...victim.precision_selection import choose

Perturb = Callable[[Tensor, Tensor, float], Tensor]
"""One batch attacked at one epsilon: (B, C, H, W), (B,), epsilon -> (B, C, H, W)."""


@dataclass(frozen=True)
class Job:
    """Linf PGD from a random start: what every contender has to do.

    module: in evaluation mode, weights frozen, contiguous float32. x: (N, C, H, W) in [0, 1] and y:
    (N,), on the module's device, all classified rightly. step_size: as a fraction of epsilon.
    batch_size: rows a pass.
    """

    module: nn.Module
    x: Tensor
    y: Tensor
    n_classes: int
    steps: int
    step_size: float
    batch_size: int

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and labels, batch by batch."""
        return zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True)


@dataclass(frozen=True)
class Outcome:
    """What a contender returns.

    x_adv: (N, C, H, W) for the number of an epsilon, if it attacks at all. passes: forward and
    backward passes for each example, where it counts them itself. precision: of its gradients.
    """

    x_adv: Callable[[int], Tensor] | None
    passes: tuple[float, float] | None = None
    precision: str = "float32"


class Contender(Protocol):
    """A way to attack all examples at several epsilons."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    @property
    def version(self) -> str:
        """Of the library that does the work."""

    @property
    def one_price(self) -> bool:
        """Whether every epsilon costs the same, so that a few tell what all would take."""

    @property
    def counts(self) -> bool:
        """Whether it counts passes itself: then it is given the model as it is."""

    def attack(self, job: Job, epsilons: Sequence[float]) -> Outcome:
        """Do the job at every epsilon."""


@dataclass(frozen=True)
class Quintain:
    """This harness through its public `evaluate`: predictions, verification and records included.

    whole: every example runs all steps at every epsilon, as the others do, instead of leaving when
    it is broken and sharing what one epsilon shows with the next. precision: as in `evaluate`.
    """

    whole: bool = False
    precision: Precision = "auto"
    name: str = "quintain"
    one_price: bool = False
    counts: bool = True

    @property
    def version(self) -> str:
        """The installed version."""
        return metadata.version("quintain")

    def attack(self, job: Job, epsilons: Sequence[float]) -> Outcome:
        """One call for all epsilons."""
        pgd = {"name": "pgd", "steps": job.steps, "step_size": job.step_size}
        return _evaluated(job, epsilons, pgd, whole=self.whole, precision=self.precision)


@dataclass(frozen=True)
class AttackAlone:
    """The attack of this harness, its success tests and the verification of what it finds.

    Without what `evaluate` does once for each example, however many steps there are: predict the
    clean image twice, look for vanishing gradients, write a record; and without a trial of faster
    copies. precision: of its gradients.
    """

    name: str = "quintain, attack alone"
    precision: Precision = "float32"
    one_price: bool = True
    counts: bool = True

    @property
    def version(self) -> str:
        """The installed version."""
        return metadata.version("quintain")

    def attack(self, job: Job, epsilons: Sequence[float]) -> Outcome:
        """Epsilon after epsilon, all steps of every example."""
        count, device = len(job.x), job.x.device
        store = InMemoryStore()
        grid = tuple(Epsilon.parse(one) for one in epsilons)
        field = AttackInputs(
            Network(job.module, device, job.batch_size),
            TensorImages(job.x),
            job.y.cpu(),
            torch.arange(count),
            CellConfig("Linf", grid, search="exhaustive", early_leaving=False),
            job.batch_size,
            Silent(),
            check_every=CHECK_EVERY if device.type == "cuda" else 1,
        )
        pgd = {"name": "pgd", "steps": job.steps, "step_size": job.step_size}
        with frozen(job.module):
            copied = choose(job.module, job.x, count, device, job.batch_size, self.precision)
            engine = CascadeRunner(field, copied.open(device, job.batch_size), store.keep)
            outcomes = engine.run([AttackStage(registry.build("attacks", pgd))])

        def x_adv(number: int) -> Tensor:
            rows = [store.images.get(row, {}).get(number, job.x[row]) for row in range(count)]
            return torch.stack([row.to(device) for row in rows])

        passes = float(outcomes.forward.mean()), float(outcomes.backward.mean())
        return Outcome(x_adv, passes, str(copied.variant))


@dataclass(frozen=True)
class QuintainQueries:
    """This harness, with gradients from finite differences of the model's scores.

    coordinates: how many pixels of each image are probed in a step, at two queries each.
    """

    coordinates: int
    name: str = "quintain"
    one_price: bool = False
    counts: bool = True

    @property
    def version(self) -> str:
        """The installed version."""
        return metadata.version("quintain")

    def attack(self, job: Job, epsilons: Sequence[float]) -> Outcome:
        """One call for all epsilons, every example asking all of its queries."""
        pgd = {
            "name": "pgd-finite-differences",
            "steps": job.steps,
            "step_size": job.step_size,
            "gradient": {"name": "finite-differences", "coordinates": self.coordinates},
        }
        return _evaluated(job, epsilons, pgd, whole=True, precision="float32")


def _evaluated(
    job: Job,
    epsilons: Sequence[float],
    attack: Mapping[str, Any],
    *,
    whole: bool,
    precision: Precision,
) -> Outcome:
    """Call `evaluate`. The passes are those of the records: under attack, not before or after."""
    result = evaluate(
        job.module,
        job.x,
        job.y,
        attack,
        epsilons=epsilons,
        search="exhaustive" if whole else "bracket",
        early_leaving=not whole,
        batch_size=job.batch_size,
        precision=precision,
    )
    chosen = result.choice
    counted = result.records[["forward", "backward"]].mean()
    return Outcome(
        lambda number: result.adversarials(epsilons[number]).to(job.x.device),
        (float(counted["forward"]), float(counted["backward"])),
        "float32" if chosen is None else str(chosen.variant),
    )


@dataclass(frozen=True)
class BareForward:
    """As many forward passes without gradient as asked for, `rows` at a time, and nothing else."""

    images: int
    rows: int
    name: str = "bare loop"
    one_price: bool = False
    counts: bool = False

    @property
    def version(self) -> str:
        """Of torch."""
        return metadata.version("torch")

    def attack(self, job: Job, epsilons: Sequence[float]) -> Outcome:
        """Look at the job's images again and again; the epsilons do not matter."""
        batch = job.x[torch.arange(self.rows, device=job.x.device) % len(job.x)]
        with torch.no_grad():
            for done in range(0, self.images, self.rows):
                job.module(batch[: self.images - done])
        return Outcome(None)


@dataclass(frozen=True)
class Rerun:
    """An attack on one batch at one epsilon, run again for every batch and every epsilon.

    distribution: what is installed. prepare: makes the attack ready for a job, once a call.
    """

    name: str
    distribution: str
    prepare: Callable[[Job], Perturb]
    one_price: bool = True
    counts: bool = False

    @property
    def version(self) -> str:
        """The installed version."""
        return metadata.version(self.distribution)

    def attack(self, job: Job, epsilons: Sequence[float]) -> Outcome:
        """Epsilon after epsilon, batch after batch."""
        perturb = self.prepare(job)
        found = [
            torch.cat([perturb(x, y, epsilon) for x, y in job.batches()]) for epsilon in epsilons
        ]
        return Outcome(found.__getitem__)


def bare_loop(job: Job) -> Perturb:
    """Forward, backward, step, and nothing else: the floor that the others are compared with."""

    def perturb(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        lower, upper = (x - epsilon).clamp(min=0.0), (x + epsilon).clamp(max=1.0)
        x_adv = torch.empty_like(x).uniform_(-epsilon, epsilon).add_(x).clamp_(lower, upper)
        for _ in range(job.steps):
            gradient = ascend(job.module, x_adv, y)
            x_adv.add_(gradient.sign_(), alpha=job.step_size * epsilon).clamp_(lower, upper)
        return x_adv

    return perturb


def ascend(module: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    """(B, C, H, W): the gradient of the summed cross-entropy, one forward and one backward pass."""
    at = x_adv.detach().requires_grad_()
    loss = functional.cross_entropy(module(at), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, at)
    return gradient


BARE = Rerun("bare loop", "torch", bare_loop)
