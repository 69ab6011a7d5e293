"""What is measured: an attack at one or many epsilons, and the queries of a black-box attack."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .contenders import BareForward, Contender, Job, Outcome, QuintainQueries
from .timing import Clock, Spread, take_turns

_SEED = 0
_ROUNDING = 1e-6  # others project in float32: what they miss the ball by is no fault
_FORWARD_ROWS = (32, 128, 512)


@dataclass(frozen=True)
class Score:
    """How a contender did.

    seconds: of each round, for all epsilons. ratio: to the first contender's, round by round.
    forward, backward: exact passes for each example, for all epsilons. robust: accuracy at each
    epsilon, None where it was not run. timed: how many epsilons were run; the time and the passes
    of the others are taken to be the same. precision: of the gradients.
    """

    measurement: str
    contender: str
    version: str
    job: Job
    epsilons: tuple[float, ...]
    timed: int
    seconds: tuple[float, ...]
    ratio: Spread
    forward: float
    backward: float
    robust: tuple[float | None, ...]
    precision: str = "float32"

    @property
    def runs_worth(self) -> float:
        """Passes, in runs of the full budget at a single epsilon: steps, and a last look."""
        return (self.forward + self.backward) / (2 * self.job.steps + 1)


def measure_attack(
    measurement: str,
    job: Job,
    epsilons: Sequence[float],
    contenders: Sequence[Contender],
    *,
    repeats: int,
    sampled: bool,
    clock: Clock,
) -> list[Score]:
    """Let contenders do the same job, the first being the base of the ratios.

    A first round, not timed, warms up, counts passes and judges what is found.
    sampled: those that pay the same price at every epsilon run the middle one only.
    """
    grid = tuple(epsilons)
    middle = (grid[len(grid) // 2],)
    runs = [_Run(one, job, middle if sampled and one.one_price else grid) for one in contenders]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        accounts = [run.account() for run in runs]
        raw = take_turns({run.contender.name: run for run in runs}, repeats, clock)
    scores: list[Score] = []
    for run, account in zip(runs, accounts, strict=True):
        scale = len(grid) / len(run.epsilons)
        seconds = tuple(scale * value for value in raw[run.contender.name])
        scores.append(
            Score(
                measurement=measurement,
                contender=run.contender.name,
                version=run.contender.version,
                job=job,
                epsilons=grid,
                timed=len(run.epsilons),
                seconds=seconds,
                ratio=Spread.of_ratios(seconds, scores[0].seconds if scores else seconds),
                forward=scale * account.forward,
                backward=scale * account.backward,
                robust=tuple(account.robust.get(epsilon) for epsilon in grid),
                precision=account.precision,
            )
        )
    return scores


def measure_queries(
    job: Job, epsilon: float, *, coordinates: int, repeats: int, clock: Clock
) -> list[Score]:
    """Finite differences against a bare loop without gradients over as many images.

    The loop runs at the best of several batch sizes, whatever the attack uses.
    """
    ours = QuintainQueries(coordinates)
    queries = round(_Run(ours, job, (epsilon,)).account().forward * len(job.x))
    bare = BareForward(queries, _best_rows(job, clock))
    return measure_attack(
        "queries", job, [epsilon], [bare, ours], repeats=repeats, sampled=False, clock=clock
    )


@dataclass(frozen=True)
class _Account:
    """Passes for each example, and the robust accuracy at the epsilons that were run."""

    forward: float
    backward: float
    robust: dict[float, float]
    precision: str


@dataclass(frozen=True)
class _Run:
    """A contender at work."""

    contender: Contender
    job: Job
    epsilons: tuple[float, ...]

    def __call__(self) -> Outcome:
        return self.contender.attack(self.job, self.epsilons)

    def account(self) -> _Account:
        """Run once, count the passes, and judge what was found, alike for every contender."""
        counted = Counted(self.job.module).eval()
        job = self.job if self.contender.counts else replace(self.job, module=counted)
        outcome = self.contender.attack(job, self.epsilons)
        tally, count = counted.tally, len(self.job.x)
        forward, backward = outcome.passes or (tally.forward / count, tally.backward / count)
        robust = {}
        if outcome.x_adv is not None:
            for number, epsilon in enumerate(self.epsilons):
                robust[epsilon] = robust_accuracy(self.job, outcome.x_adv(number), epsilon)
        return _Account(forward, backward, robust, outcome.precision)


def robust_accuracy(job: Job, x_adv: Tensor, epsilon: float) -> float:
    """Share of the examples that x_adv, (N, C, H, W), does not fool; outside the ball none does."""
    with torch.no_grad():
        parts = [job.module(part).argmax(1) for part in x_adv.split(job.batch_size)]
    outside = ((x_adv - job.x).abs() > epsilon + _ROUNDING) | (x_adv < 0) | (x_adv > 1)
    fooled = (torch.cat(parts) != job.y) & ~outside.flatten(1).any(dim=1)
    return 1.0 - float(fooled.double().mean())


def _best_rows(job: Job, clock: Clock) -> int:
    """The batch size at which forward passes are fastest here."""
    images = max(_FORWARD_ROWS)
    spent = {}
    for rows in (_FORWARD_ROWS[-1], *_FORWARD_ROWS):  # the first one warms up
        loop = BareForward(images, rows)
        began = clock()
        loop.attack(job, [])
        spent[rows] = clock() - began
    return min(spent, key=lambda rows: spent[rows])


@dataclass
class Tally:
    """Rows that went through a model, forward and backward."""

    forward: int = 0
    backward: int = 0


class Counted(nn.Module):
    """A model that counts. Logits without a gradient, or never differentiated, count forward only.

    A wrapper, not hooks on the model: some callers run an nn.Sequential's layers one by one.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.tally = Tally()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        logits: Tensor = self.module(x)
        self.tally.forward += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._backward)
        return logits

    def _backward(self, gradient: Tensor) -> None:
        self.tally.backward += len(gradient)
