"""The whole benchmark: workloads, one after another, through every measurement asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .captured import CapturedLoop
from .contenders import BARE, AttackAlone, Contender, Job, Quintain
from .machine import Machine, flops_per_step
from .measurements import Score, measure_attack, measure_queries
from .table import Entry
from .timing import Clock, Spread
from .workloads import Workload

CURVES = {"curve-8": 8, "curve-32": 32}
MEASUREMENTS = ("one-epsilon", *CURVES, "queries")
_REACH = 2.5  # epsilons that all steps could cover
_QUERY_STEPS, _QUERY_COORDINATES = 2, 64


@dataclass(frozen=True)
class Effort:
    """How much is done. batch_sizes: of the measurement at one epsilon, on as many examples each.

    examples: of a curve; also its batch size, up to the largest of batch_sizes.
    sampled: peers run the middle epsilon of a curve only, and the others are taken to cost as much.
    """

    measurements: Sequence[str] = MEASUREMENTS
    steps: int = 20
    repeats: int = 3
    batch_sizes: Sequence[int] = (32, 128)
    examples: int = 64
    sampled: bool = True

    @property
    def most_examples(self) -> int:
        """How many examples a workload has to have."""
        return max(self.examples, *self.batch_sizes)


def run_workload(
    workload: Workload,
    peers: Sequence[Contender],
    effort: Effort,
    machine: Machine,
    clock: Clock,
    say: Callable[[str], None],
) -> list[Entry]:
    """Take every measurement on one workload."""
    entries = []
    for scores in _measure(workload, peers, effort, clock):
        first = scores[0]
        say(f"{workload.name}: {first.measurement}, batch {first.job.batch_size}")
        entries += [
            Entry(workload.name, workload.dataset, score, *_rates(score, machine))
            for score in scores
        ]
    return entries


def _measure(
    workload: Workload, peers: Sequence[Contender], effort: Effort, clock: Clock
) -> Iterator[list[Score]]:
    middle, repeats = workload.epsilon / 2, effort.repeats
    if "one-epsilon" in effort.measurements:
        contenders: list[Contender] = [
            BARE,
            AttackAlone(),
            AttackAlone("quintain, attack alone, bfloat16", "bfloat16"),
            Quintain(whole=True),
            *(_captured() if workload.x.is_cuda else ()),
            *peers,
        ]
        for size in effort.batch_sizes:
            yield measure_attack(
                "one-epsilon",
                make_job(workload, size, size, effort.steps),
                [middle],
                contenders,
                repeats=repeats,
                sampled=False,
                clock=clock,
            )
    size = min(max(effort.batch_sizes), effort.examples)
    for name, points in CURVES.items():
        if name in effort.measurements:
            yield measure_attack(
                name,
                make_job(workload, effort.examples, size, effort.steps),
                grid(workload.epsilon, points),
                [BARE, Quintain(), *peers],
                repeats=repeats,
                sampled=effort.sampled,
                clock=clock,
            )
    if "queries" in effort.measurements:
        size = min(effort.batch_sizes)
        job = make_job(workload, size, size, _QUERY_STEPS)
        yield measure_queries(
            job, middle, coordinates=_QUERY_COORDINATES, repeats=repeats, clock=clock
        )


def _captured() -> tuple[Contender, ...]:
    """The floors on a GPU, for the attack alone at the same precision to be compared with."""
    return CapturedLoop("float32"), CapturedLoop("bfloat16")


def make_job(workload: Workload, examples: int, batch_size: int, steps: int) -> Job:
    """PGD on some of a workload's examples, with the usual step size for the number of steps."""
    x, y = workload.examples(examples)
    step_size = min(1.0, _REACH / steps)
    return Job(workload.module, x, y, workload.n_classes, steps, step_size, batch_size)


def grid(largest: float, points: int) -> tuple[float, ...]:
    """Equal steps up to the largest epsilon."""
    return tuple(round(largest * number / points, 6) for number in range(1, points + 1))


def _rates(score: Score, machine: Machine) -> tuple[float | None, float | None]:
    """Images x steps a second, and the share of the card's matrix products that this comes to."""
    fastest = machine.matmul_rate(score.precision)
    if fastest is None or score.measurement != "one-epsilon":
        return None, None
    job = score.job
    rate = len(job.x) * job.steps / Spread.of(score.seconds).median
    return rate, rate * flops_per_step(job) / fastest
