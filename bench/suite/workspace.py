"""Jobs done in this process, with what it keeps from one to the next."""

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ..api.errors import CellError, one_line
from ..api.flags import stored
from ..api.progress import Progress, Silent
from ..api.shared.path_names import relative_to
from ..api.shared.threads import threads_for
from ..engine.adversarials import DiskStore, FewExamples, SeveralStores
from ..engine.case import Case, CellResult
from ..engine.outcomes import Part
from ..store.cell import Cell
from ..store.environment import hardware, software
from ..store.hashing import hash_file
from ..store.privacy import private
from ..store.records import Finished, examples_file, read_cell, write_cell
from ..store.shards import adversarials_file, read_shard, write_shard
from ..victim.model import frozen
from ..victim.probe import pass_seconds, probe
from .files_read import hashed, recorded, shown_from
from .jobs import (
    Answer,
    CellJob,
    CellWritten,
    Failed,
    Job,
    NetworkFound,
    NetworkJob,
    Run,
    ShardJob,
    ShardWritten,
)
from .keys import Keys
from .networks import Networks, OpenNetwork
from .plan import Plan, make_plan
from .tasks import Resources, Task


def run_job(job: Job) -> Answer:
    """Do a job, whatever it comes to. What jobs of one run share is made once in a process."""
    try:
        return _workspace(job.run).answer(job)
    except (Exception, SystemExit) as error:
        return Failed(one_line(error), private(traceback.format_exc(), job.run.folder))


_here: "Workspace | None" = None


def _workspace(run: Run) -> "Workspace":
    global _here
    if _here is None or (_here.run is not run and _here.run != run):
        _here = Workspace(run)
    return _here


class Workspace:
    """What a process keeps between the jobs of one run: the plan, the data, the networks in use.

    keys: of the plan, where that is made already. progress: makes bars by their titles.
    """

    def __init__(
        self, run: Run, keys: Keys | None = None, progress: Callable[[str], Progress] | None = None
    ) -> None:
        self.run = run
        if keys is None:
            with relative_to(run.folder):
                keys = Keys(make_plan(run.suite, run.file, run.folder), run.device)
        self.keys = keys
        self.plan: Plan = keys.plan
        self._progress = progress or (lambda title: Silent())
        self._networks = Networks(keys, run.cache, self._progress)
        self._task_files: dict[int, set[str]] = {}  # that code of the user's read for each task

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within, jobs of the run that are done in this process are done here."""
        global _here
        before, _here = _here, self
        try:
            yield
        finally:
            _here = before

    def answer(self, job: Job) -> Answer:
        """Do a job. Raises: whatever the user's code does."""
        with relative_to(self.run.folder):
            return self._look(job) if isinstance(job, NetworkJob) else self._answer_cell(job)

    def _look(self, job: NetworkJob) -> NetworkFound:
        """Make a network, and say all that its cells depend on."""
        plan = self.plan
        began = time.monotonic()
        network = self._networks.get(job.number)
        seconds = time.monotonic() - began
        module, first = network.module, plan.test.images.read(torch.tensor([0]))
        with frozen(module):
            threads = threads_for(module, first, self.run.device)
        about = {
            "key": job.key,
            "weights_hash": network.weights,
            "probe": probe(module, plan.test.shape, self.run.device),
            "parameters": network.parameters,
            "flags": stored(network.trained.flags),
            "history": [dict(one) for one in network.trained.history],
            "threads": threads,
            "precision": self._networks.choose_precision(job.number, job.precisions),
        }
        passing = pass_seconds(module, plan.test.shape, self.run.device) if job.timed else 0.0
        return NetworkFound(about, frozenset(network.files), seconds, passing)

    def _answer_cell(self, job: CellJob | ShardJob) -> Answer:
        """Compute a cell, or a shard of one. Raises: whatever is wrong with it."""
        cell = job.cell if isinstance(job, ShardJob) else job
        with self._store(cell.path) as store:
            if isinstance(job, ShardJob):
                return self._compute_shard(job, store)
            return self._compute(job, store)

    def _store(self, path: Path) -> AbstractContextManager[DiskStore | None]:
        """Where adversarial examples go until they are saved beside the records."""
        if not self.run.suite.save_adversarials:
            return nullcontext()
        return DiskStore.opened(path.parent, self.plan.test.shape)

    def _few(self, start: int = 0) -> FewExamples:
        """Those that are kept of every cell, at the leaderboard's epsilon."""
        suite = self.run.suite
        return FewExamples(suite.epsilons.index(suite.headline), len(self.plan.test), start)

    def _opened(self, job: CellJob) -> tuple[Task, str, OpenNetwork]:
        """The task of a cell, what progress calls it, and its network. Raises: CellError."""
        if self.keys.cell(job.place) != job.key:
            raise CellError("its plugins or its data changed while the suite was running")
        task = self.plan.tasks[job.place[1]]
        title = f"{self.plan.defended_models[job.number].title} x {task.title}"
        return task, title, self._networks.get(job.number, job.network["weights_hash"])

    def _compute_shard(self, job: ShardJob, store: DiskStore | None) -> ShardWritten:
        """Run the task on some examples, and write what came of it. The shard's file comes last."""
        task, title, network = self._opened(job.cell)
        start, stop = job.shard.start, job.shard.stop
        began = time.monotonic()
        with recorded() as files:
            few = self._few(start)
            case, resources = self._prepared(job.cell, network, title, few, store, (start, stop))
            part = task.part(case.part(start, stop), resources)
        read = self._task_files.setdefault(job.cell.place[1], set())
        read |= files
        saved = None
        if store is not None:
            store.save(adversarials_file(job.path))
            saved = hash_file(adversarials_file(job.path))
        about = {
            **job.identity,
            "adversarials": saved,
            "seconds": time.monotonic() - began,
            "report": dict(part.report),
            "files": sorted(shown_from(self.run.folder, one) for one in read),
        }
        kept = {f"kept.{name}": one.numpy() for name, one in few.arrays().items()}
        write_shard(job.path, about, {**part.values, **kept})
        return ShardWritten()

    def _shard(
        self, path: Path, few: FewExamples, store: DiskStore | None
    ) -> tuple[Part, dict[str, Any]]:
        """What a shard showed, and what it is about; what it kept is added to what is kept.

        Raises: RunDirectoryError.
        """
        about, arrays = read_shard(path)
        kept = {
            name.removeprefix("kept."): torch.from_numpy(arrays.pop(name))
            for name in [*arrays]
            if name.startswith("kept.")
        }
        few.add(kept, about["start"])
        if store is not None:
            store.add(adversarials_file(path), about["start"])
        return Part(arrays, about["report"]), about

    def _compute(self, job: CellJob, store: DiskStore | None) -> CellWritten:
        """Run the task, and write what came of it. The records come last: they say all is there."""
        task, title, network = self._opened(job)
        began = time.monotonic()
        read = self._task_files.setdefault(job.place[1], set())
        with recorded() as files:
            few = self._few()
            shards = [self._shard(path, few, store) for path in job.shards]
            case, resources = self._prepared(job, network, title, few, store)
            result = task.run(case, resources, [part for part, _ in shards])
        known = (one for _, about in shards for one in about["files"])
        read |= files.union(os.path.abspath(self.run.folder / one) for one in known)
        seconds = time.monotonic() - began + sum(about["seconds"] for _, about in shards)
        seconds = round(seconds, 3)
        about = self._about(job, network, result)
        about["files"] = hashed(set(job.files | read), self.run.folder)
        about |= job.titles
        if store is not None:
            store.save(job.path.with_suffix(".safetensors"))
            about["adversarials"] = hash_file(job.path.with_suffix(".safetensors"))
        if few.any:
            few.save(examples_file(job.path), self.plan.test.images, network.predict)
            about["kept_examples"] = hash_file(examples_file(job.path))
        cell = Cell(about, result.records)
        sha256 = write_cell(job.path, cell)
        finished = Finished(
            job.path,
            job.key,
            sha256,
            cell.weights,
            about["files"],
            about.get("adversarials"),
            seconds,
            fresh=True,
            computed_on=hardware(self.run.device),
        )
        line = f"{title}: {task.summary(result, self.run.suite.headline)} ({seconds:.1f} s)"
        return CellWritten(finished, line + "".join(f" [{flag}]" for flag in result.flags))

    def _prepared(
        self,
        job: CellJob,
        network: OpenNetwork,
        title: str,
        few: FewExamples,
        store: DiskStore | None,
        rows: tuple[int, int] | None = None,
    ) -> tuple[Case, Resources]:
        """What the task is run on, and what it may use. rows: from, up to, where not on all."""
        task = self.plan.tasks[job.place[1]]
        resources = Resources(
            self._progress(title),
            self.run.suite.batch_size,
            few if store is None else SeveralStores((few, store)),
            self._networks.precision(network, job.network["precision"]),
            self._networks.attackers(title, task.source, job.source_weights),
            lambda kind: [
                read_cell(path).records.iloc[slice(*rows or (None,))].reset_index(drop=True)
                for path in job.earlier.get(kind, ())
            ],
        )
        return self._networks.case(network), resources

    def _about(self, job: CellJob, network: OpenNetwork, result: CellResult) -> dict[str, Any]:
        """What a cell's records are about: the same, whoever made them."""
        suite, task = self.run.suite, self.plan.tasks[job.place[1]]
        about = {
            "n_examples": len(self.plan.test),
            "norm": suite.norm,
            "epsilon_values": [one.value for one in suite.epsilons],
            "seed": suite.seed,
            "search": task.settings.search,
            "query_budget": task.settings.query_budget,
            "device": str(self.run.device),
            "dtype": result.dtype,
            "model_dtype": result.model_dtype,
            "flags": [*network.trained.flags, *result.flags],
            "report": dict(result.report),
            "parameters": network.parameters,
            "stages": list(result.stages),
            **task.describe(),
            "software": software(),
            "key": job.key,
            "weights_hash": network.weights,
            "probe": job.network["probe"],
        }
        if job.source_weights is not None:
            about["source_weights_hash"] = job.source_weights
        if "rejection_margin" in result.records:
            about["false_positive_rate_target"] = getattr(
                network.module, "false_positive_rate", None
            )
        return about
