"""The runner: from a suite to its tables, in one pass over what is missing."""

import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..api.errors import RunDirectoryError
from ..api.shared.file_checks import check_writable
from ..api.shared.path_names import relative_to
from ..api.shared.progress_bars import Bar
from ..report.write import Tables
from ..store.atomic import write_text
from ..store.privacy import private
from ..store.run_directory import RunDirectory, opened
from ..store.shards import shard_folder
from ..training.networks import sweep
from .config import Suite
from .executors.scheduling import Executor, InProcess
from .files_read import recorded
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
from .manifest import RunManifest
from .plan import Place, Shard, check_models, make_plan
from .progress_lines import Lines
from .queue import Queue
from .resume import CompletedCells
from .sharding import divided, files, is_there
from .workspace import Workspace


@dataclass(frozen=True)
class Outcome:
    """How many cells are done, how many of them were there already, how many failed; the tables."""

    done: int
    reused: int
    failed: int
    tables: Tables | None


def run_suite(
    suite: Suite,
    text: str,
    file: str,
    folder: Path,
    out: Path,
    device: torch.device,
    cache: Path | None,
    *,
    update: bool = False,
    executor: Executor | None = None,
) -> Outcome:
    """Run a suite into a directory; cells that are there already are not run again.

    executor: who does the work; this process by default.

    Raises: QuintainError before any work when the suite, the data, the checkpoints or the directory
    cannot be used. A cell that fails later is reported as failed, and the rest go on.
    """
    with relative_to(folder):
        with recorded() as files:
            plan = make_plan(suite, file, folder)
        if cache is not None:
            _check_cache(cache)
            sweep(cache)
        keys = Keys(plan, device)
        completed = CompletedCells(keys, RunDirectory(out), cache)
        check_models(plan, file, completed.unfinished(plan))
        run = Run(suite, file, folder, device, cache)
        with (
            opened(out, suite.resolved(), text, update=update) as directory,
            Workspace(run, keys, Bar).at_work(),
        ):
            manifest = RunManifest(keys, completed, directory, file)
            return Runner(run, keys, completed, manifest, files).run(executor or InProcess())


def _check_cache(cache: Path) -> None:
    try:
        check_writable(cache / "networks" / "probe")
    except OSError as error:
        raise RunDirectoryError(
            f"the cache folder {cache} cannot be written ({error.strerror or error}); "
            "set QUINTAIN_CACHE to another one"
        ) from None


class Runner:
    """One run of a plan: hands out jobs for what is missing, and notes what comes of each."""

    def __init__(
        self,
        run: Run,
        keys: Keys,
        completed: CompletedCells,
        manifest: RunManifest,
        files: set[str],
    ) -> None:
        self._run = run
        self._keys = keys
        self._plan = keys.plan
        self._completed = completed
        self._manifest = manifest
        self._queue = Queue(keys.plan, self._split)
        self._shards: dict[Place, tuple[Shard, ...]] = {}
        self._in_parts: Counter[Place] = Counter()  # examples done, as shards
        self._files = frozenset(files)  # that code of the user's read to make the plan
        self._networks: dict[int, NetworkFound] = {}
        self._unavailable: dict[int, str] = {}  # networks that cannot be had, and why
        self._lines = Lines(manifest.directory.log, len(keys.plan.test))
        self._concurrent = False

    def run(self, executor: Executor) -> Outcome:
        """Run what is missing, then bring the tables up to date."""
        self._concurrent = executor.concurrent
        self._manifest.executor = executor.name
        missing = [place for place in self._plan.places if place not in self._manifest.done]
        self._queue.add(missing)
        self._lines.add(len(missing))
        for number in self._completed.to_check:
            self._queue.want(number)
        if missing:
            self._manifest.write()
        with closing(executor.run(self._next_job)) as answers:
            for job, answer, running in answers:
                self._lines.running = running
                self._note(job, answer)
        tables = self._manifest.close()
        done = self._manifest.done.values()
        reused = sum(not one.fresh for one in done)
        return Outcome(len(done), reused, len(self._manifest.failed), tables)

    def _next_job(self, held: int | None) -> Job | None:
        item = self._queue.take(held)
        if isinstance(item, int):
            key = self._keys.networks[item]
            timed = self._concurrent and self._run.suite.shard_examples is None
            return NetworkJob(self._run, item, key, self._completed.precisions, timed)
        if isinstance(item, Shard):
            return ShardJob(self._cell_job(item.place), item)
        if item is None:
            return None
        job = self._cell_job(item)
        return replace(job, shards=files(job, self._shards.get(item, ())))

    def _split(self, place: Place) -> list[Shard]:
        """Divide a cell, whose networks have been found: the shards that are to be computed."""
        suite, task = self._run.suite, self._plan.tasks[place[1]]
        if not self._concurrent and suite.shard_examples is None:
            return []
        job, examples = self._cell_job(place), len(self._plan.test)
        passing = self._networks[place[0]].pass_seconds
        shards = divided(job, examples, suite.shard_examples, task.passes, passing)
        self._shards[place] = shards
        return [one for one in shards if not is_there(job, one)]

    def _cell_job(self, place: Place) -> CellJob:
        """A cell as a job. Its networks have been found."""
        numbers = self._plan.networks(place)
        found = [self._networks[number] for number in numbers]
        weights = [str(one.about["weights_hash"]) for one in found]
        return CellJob(
            run=self._run,
            place=place,
            key=self._keys.cell(place),
            path=self._path(place),
            network={name: found[0].about[name] for name in ("weights_hash", "probe", "precision")},
            source_weights=weights[1] if len(weights) > 1 else None,
            network_keys=tuple(self._keys.networks[number] for number in numbers),
            files=self._files.union(*(one.files for one in found)),
            earlier={
                kind: self._earlier(place[0], kind) for kind in self._plan.tasks[place[1]].after
            },
            titles=self._manifest.titles(place),
        )

    def _path(self, place: Place) -> Path:
        """Where the records of a cell are, or will be."""
        key, titles = self._keys.cell(place), self._manifest.titles(place)
        names = (titles[one] for one in ("model", "defense", "attack"))
        known = self._completed.path(key)
        return (known or self._manifest.directory.records(*names, key=key)).absolute()

    def _earlier(self, number: int, kind: str) -> tuple[Path, ...]:
        """The records of a defended model's cells of a kind."""
        done, tasks = self._manifest.done, self._plan.kinds.get(kind, [])
        found = [done[number, task].path for task in tasks if (number, task) in done]
        return tuple(path.absolute() for path in found)

    def _note(self, job: Job, answer: Answer) -> None:
        """Take what came of a job into the manifest; what it makes necessary is queued."""
        if isinstance(job, ShardJob):
            self._queue.shard_ended(job.shard)
            place = job.cell.place
            if isinstance(answer, Failed) and place not in self._manifest.failed:
                self._queue.give_up(place)
                self._fail(place, answer)
            elif isinstance(answer, ShardWritten):
                self._in_parts[place] += job.shard.stop - job.shard.start
                self._lines.part(job.shard.stop - job.shard.start)
            return
        if isinstance(job, CellJob):
            self._queue.ended(job.place)
            if isinstance(answer, CellWritten):
                self._remove_shards(job.path)
                self._manifest.add(job.place, answer.cell)
                self._manifest.write_now_and_then()
                self._lines.done(answer.line, self._in_parts[job.place])
            elif isinstance(answer, Failed):
                self._fail(job.place, answer)
            return
        title = self._plan.defended_models[job.number].title
        if isinstance(answer, NetworkFound):
            self._networks[job.number] = answer
            self._queue.made(job.number)
            self._compute_again(self._manifest.network(job.number, answer.about))
            if answer.seconds > 1.0 and self._plan.defended_models[job.number].defense is not None:
                self._lines.say(f"{title}: trained")
        elif isinstance(answer, Failed):
            self._unavailable[job.number] = answer.reason
            own = {(job.number, task) for task in self._plan.tasks_on(job.number)}
            lost = own.union(self._queue.failed(job.number))
            self._lines.add(-len(lost))
            for place in lost:
                self._manifest.fail(place, answer.reason)
                self._keep_details(place, answer)
            self._lines.say(f"{title}: FAILED: {answer.reason}")

    def _remove_shards(self, records: Path) -> None:
        """Remove the shards of a cell that is whole, and their folder when it is empty."""
        folder = shard_folder(records)
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.parent.rmdir()

    def _fail(self, place: Place, answer: Failed) -> None:
        self._manifest.fail(place, answer.reason)
        self._keep_details(place, answer)
        title = "{model} x {defense} x {attack}".format(**self._manifest.titles(place))
        self._lines.failed(f"{title}: FAILED: {answer.reason}", self._in_parts[place])

    def _keep_details(self, place: Place, answer: Failed) -> None:
        """Keep what is known of a failure beside where the records would be."""
        with suppress(OSError):  # the reason is in the manifest as well
            said = private(answer.details or answer.reason, self._run.folder)
            write_text(self._path(place).with_suffix(".error.txt"), said)

    def _compute_again(self, places: Iterable[Place]) -> None:
        """Queue cells whose networks have changed, but for those that borrow one that failed."""
        for place in places:
            lost = [one for one in self._plan.networks(place) if one in self._unavailable]
            if lost:
                self._manifest.fail(place, self._unavailable[lost[0]])
            else:
                self._queue.add([place])
                self._lines.add(1)
