"""What `quintain bench` does: read what the user asks for, measure, write, and show."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...api import registry
from ...api.errors import BadParameter, closest
from ...api.plugins.plugin import read_specs
from ...api.shared.file_checks import check_writable
from ...api.shared.options import parse_device, read_radius
from ...store.atomic import write_text, writing
from ...store.spreadsheet import to_csv
from ...suite.progress_lines import Lines
from .benchmark import MEASUREMENTS, Effort, run_workload
from .machine import Machine
from .peers import installed
from .table import Entry, benchmarks_table, summary
from .timing import clock_of
from .workloads import NAMES, SMALL, Candidate, built_in, own


@dataclass(frozen=True)
class Request:
    """What the user asks for: the options of `quintain bench`, as the command line gives them."""

    out: Path
    workloads: Sequence[str]
    measurements: Sequence[str]
    model: str | None
    defense: str
    checkpoint: Path | None
    dataset: str | None
    settings: Sequence[str]
    plugins: Sequence[Path]
    epsilon: str | None
    steps: int
    examples: int
    batch_sizes: Sequence[int]
    repeats: int
    whole: bool
    peers: bool
    device: str

    def effort(self) -> Effort:
        """How much is done.

        Raises: BadParameter for an unknown measurement.
        """
        for one in self.measurements:
            if one not in MEASUREMENTS:
                near = closest(one, MEASUREMENTS) or "; there are " + ", ".join(MEASUREMENTS)
                raise BadParameter(f"no measurement '{one}'{near}")
        return Effort(
            measurements=self.measurements or MEASUREMENTS,
            steps=self.steps,
            repeats=self.repeats,
            batch_sizes=self.batch_sizes,
            examples=self.examples,
            sampled=not self.whole,
        )

    def candidates(self, device: torch.device) -> list[Candidate]:
        """The built-in workloads and the user's own model; without either, what ends soon.

        Raises: QuintainError for what cannot be used.
        """
        if self.model is None and self.checkpoint is not None:
            raise BadParameter(f"--checkpoint {self.checkpoint} needs --model, the network to fill")
        names = {"dataset": self.dataset} if self.dataset else {}
        names |= {"model": self.model, "defense": self.defense} if self.model else {}
        specs = read_specs(names, self.settings)
        data, largest = specs.get("dataset"), read_radius(self.epsilon, "Linf")
        chosen = [built_in(one, data, largest) for one in self.workloads]
        if self.model is not None:
            chosen.append(own(specs["model"], specs["defense"], data, self.checkpoint, largest))
        default = NAMES if device.type == "cuda" else SMALL
        return chosen or [built_in(one, data, largest) for one in default]


def bench_command(request: Request) -> str:
    """Measure, write `benchmarks.csv` into a folder, and return a table to print.

    Raises: QuintainError for what cannot be used.
    """
    for plugin in request.plugins:
        registry.load_named(str(plugin), Path.cwd())
    device, effort = parse_device(request.device), request.effort()
    candidates = request.candidates(device)
    for candidate in candidates:
        candidate.check()
    path = request.out / "benchmarks.csv"
    with writing(path):
        check_writable(path)
    entries, machine = _run(candidates, effort, device, with_peers=request.peers)
    with writing(path):
        write_text(path, to_csv(benchmarks_table(entries, machine)))
    return f"{summary(entries, machine)}\n\nwrote {path}"


def _run(
    candidates: Sequence[Candidate], effort: Effort, device: torch.device, *, with_peers: bool
) -> tuple[list[Entry], Machine]:
    lines, clock = Lines(), clock_of(device)
    peers, missing = installed() if with_peers else ([], [])
    for line in missing:
        lines.say(line)
    machine = Machine.of(device, clock)
    entries: list[Entry] = []
    for candidate in candidates:
        workload = candidate.ready(device, effort.most_examples)
        entries += run_workload(workload, peers, effort, machine, clock, lines.say)
    return entries, machine
