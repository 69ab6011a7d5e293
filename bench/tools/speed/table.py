"""What a benchmark writes: a row for each contender in each measurement, and a table to read."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from tabulate import tabulate

from ...api.shared.safe_text import markdown
from .machine import Machine
from .measurements import Score
from .timing import Spread

COLUMNS = (
    "workload", "dataset", "measurement", "contender", "version", "precision",
    "n_examples", "batch_size", "steps", "step_size", "epsilons", "timed_epsilons", "repeats",
    "seconds", "ratio", "ratio_low", "ratio_high", "forward", "backward", "runs_worth",
    "robust_accuracy", "images_steps_per_second", "matmul_share",
    "device", "device_name", "threads", "torch",
)  # fmt: skip
_NOT_RUN = "-"


@dataclass(frozen=True)
class Entry:
    """A contender's score on a workload. throughput: images x steps a second, on a GPU alone.

    matmul_share: the arithmetic done, as a part of what the card does in matrix products.
    """

    workload: str
    dataset: str
    score: Score
    throughput: float | None = None
    matmul_share: float | None = None


def benchmarks_table(entries: Iterable[Entry], machine: Machine) -> pd.DataFrame:
    """All figures, in COLUMNS. Lists are separated by blanks; `-` stands where nothing was run."""
    return pd.DataFrame([_row(entry, machine) for entry in entries], columns=list(COLUMNS))


def _row(entry: Entry, machine: Machine) -> dict[str, object]:
    score, job = entry.score, entry.score.job
    return {
        "workload": entry.workload,
        "dataset": entry.dataset,
        "measurement": score.measurement,
        "contender": score.contender,
        "version": score.version,
        "precision": score.precision,
        "n_examples": len(job.x),
        "batch_size": job.batch_size,
        "steps": job.steps,
        "step_size": job.step_size,
        "epsilons": " ".join(f"{one:g}" for one in score.epsilons),
        "timed_epsilons": score.timed,
        "repeats": len(score.seconds),
        "seconds": Spread.of(score.seconds).median,
        "ratio": score.ratio.median,
        "ratio_low": score.ratio.low,
        "ratio_high": score.ratio.high,
        "forward": score.forward,
        "backward": score.backward,
        "runs_worth": score.runs_worth if score.backward else None,
        "robust_accuracy": " ".join(
            _NOT_RUN if one is None else f"{one:.4g}" for one in score.robust
        ),
        "images_steps_per_second": entry.throughput,
        "matmul_share": entry.matmul_share,
        "device": machine.device,
        "device_name": machine.name,
        "threads": machine.threads,
        "torch": machine.torch_version,
    }


def summary(entries: Sequence[Entry], machine: Machine) -> str:
    """Markdown to read: ratios to the bare loop, and how many times faster than the best peer."""
    titles = dict.fromkeys((entry.workload, entry.dataset) for entry in entries)
    parts = [
        f"On {machine.name}, {machine.threads} threads. time: over the bare loop's in its round. "
        "runs: passes, over those of one run at a single epsilon. robust: at the middle epsilon."
    ]
    for title in titles:
        here = [entry for entry in entries if (entry.workload, entry.dataset) == title]
        parts += [markdown(f"{title[0]} on {title[1]}") + ":", _markdown(here)]
        parts += _boasts([entry.score for entry in here])
    return "\n\n".join(parts)


def _markdown(entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        score = entry.score
        count = len(score.epsilons)
        scaled = "" if score.timed == count else f" ({score.timed} of {count} epsilons, scaled)"
        row = {
            "measurement": f"{score.measurement}, {len(score.job.x)} x {score.job.steps} steps",
            "contender": markdown(score.contender + scaled),
            "gradients": score.precision,
            "time": f"{score.ratio.median:.3g}",
            "lowest to highest": f"{score.ratio.low:.3g} to {score.ratio.high:.3g}",
            "forward": f"{score.forward:.1f}",
            "backward": f"{score.backward:.1f}",
            "runs": f"{score.runs_worth:.2f}" if score.backward else _NOT_RUN,
            "robust": _middle(score.robust),
        }
        if entry.throughput is not None:
            row["images x steps / s"] = f"{entry.throughput:,.0f}"
        if entry.matmul_share is not None:
            row["of matrix rate"] = f"{entry.matmul_share:.1%}"
        rows.append(row)
    return str(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))


def _middle(robust: Sequence[float | None]) -> str:
    """Accuracy at the middle epsilon, which every contender runs."""
    value = robust[len(robust) // 2]
    return _NOT_RUN if value is None else f"{value:.2f}"


def _boasts(scores: Sequence[Score]) -> list[str]:
    """For each measurement with peers in it: quintain's time against the fastest of them."""
    lines = []
    for measurement in dict.fromkeys((one.measurement, one.job.batch_size) for one in scores):
        here = [one for one in scores if (one.measurement, one.job.batch_size) == measurement]
        ours = next(one for one in here if one.contender == "quintain")
        peers = [one for one in here if not one.contender.startswith(("quintain", "bare loop"))]
        if peers:
            best = min(peers, key=lambda one: one.ratio.median)
            times = Spread.of_ratios(best.seconds, ours.seconds)
            lines.append(
                f"{measurement[0]}, batch {measurement[1]}: quintain is {times.median:.3g} times "
                f"({times.low:.3g} to {times.high:.3g}) as fast as {best.contender}, the best peer"
            )
        lines += _beside_the_floor(here)
    return lines


def _beside_the_floor(scores: Sequence[Score]) -> Iterator[str]:
    """On a GPU: the throughput of the attack alone over a hand-captured step's, as precise."""
    floors = {one.precision: one for one in scores if "captured" in one.contender}
    for one in scores:
        if one.contender.startswith("quintain, attack alone") and one.precision in floors:
            share = Spread.of_ratios(floors[one.precision].seconds, one.seconds)
            yield (
                f"{one.measurement}, batch {one.job.batch_size}, {one.precision}: the attack alone "
                f"has {share.median:.2f} ({share.low:.2f} to {share.high:.2f}) of the throughput "
                "of the captured step"
            )
