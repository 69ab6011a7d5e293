"""Jobs on a Slurm cluster whose machines share a file system.

Needs the extra `slurm`, the package submitit. A worker is a Slurm job that takes one job of the run
after the other from a folder in the run directory, so that torch, the data and networks are loaded
once. Records are the same files, to the byte, as one process writes.
"""

import math
import os
import pickle
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Set
from contextlib import redirect_stderr, suppress
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from ...api.errors import BadParameter, QuintainError, one_line
from ...store.environment import software
from ..jobs import Answer, Job
from .output import last_lines, redirect, run_with_output
from .remote import RemoteJob, usable, workers_folder
from .scheduling import Answers, Lost, NextJob, Pool, schedule

_POLL = 0.1  # seconds between two looks into a folder, at first
_IDLE = 2.0  # seconds between them at most, for a worker that nobody sends a job
_LOOK = 15.0  # seconds between two questions to Slurm whether a worker's job has ended
_BEAT = 10.0  # seconds between two signs of life of this process
_SILENCE = 300.0  # seconds without one, after which a worker ends
_PATIENCE = 5.0  # seconds that a worker on this machine has to end
_WORKERS = 4
_OUTPUT = "output.log"  # of a worker, in its folder
_ANSWERS = "answers"  # the folder that all workers answer into
# options that submitit has for every kind of cluster
_SHARED = {"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"}


def read_options(written: str) -> dict[str, Any]:
    """Read `--slurm`: what submitit is given, as `partition=gpu,timeout_min=240`.

    Raises: BadParameter.
    """
    found: dict[str, Any] = {}
    for one in filter(None, written.split(",")):
        name, equals, value = (part.strip() for part in one.partition("="))
        if not equals or not name.isidentifier() or not value:
            raise BadParameter(
                f"--slurm {written}: names and values as in partition=gpu,timeout_min=240"
            )
        found[name] = _number(value)
    return found


def _number(value: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value


class SlurmCluster:
    """Does jobs in workers that are Slurm jobs, each with a core, and a GPU for jobs on GPUs.

    workers: at most; 4 by default. options: what submitit is given, such as `partition`,
    `account` and `timeout_min`; `cluster="local"` runs the workers on this machine. shared: a
    folder that every worker must see.

    A worker whose time is up ends after its job, and is replaced. So is one that is lost; its job
    is done again, up to three times. A worker with other versions of Python, torch or quintain is
    refused.

    Raises: QuintainError without submitit or Slurm, where Slurm takes no worker, and where a worker
    does not see the folder or has other versions; BadParameter for options that submitit does not
    know.
    """

    def __init__(
        self,
        workers: int | None,
        options: Mapping[str, Any],
        shared: Path,
        needs: tuple[int | None, float],
    ) -> None:
        if find_spec("submitit") is None:
            raise QuintainError(
                "--executor slurm needs the package submitit, not installed: "
                "pip install 'quintain[slurm]' brings it"
            )
        cluster = options.get("cluster", "slurm")
        if cluster == "slurm":
            _check_slurm()
        self.name = "slurm"
        self.concurrent = workers != 1
        self._count = workers or _WORKERS
        self._cluster = cluster
        self._needs = {"cpus_per_task": needs[0] or torch.get_num_threads()}
        if needs[1]:
            self._needs["gpus_per_node"] = math.ceil(needs[1])
        self._options = {_whole(name): one for name, one in options.items() if name != "cluster"}
        self._shared = shared.absolute()

    def run(self, next_job: NextJob) -> Answers:
        """Do jobs until there are none; a job whose worker is lost is done again."""
        local = self._cluster == "local"
        alive = threading.Event()

        with workers_folder(self._shared) as folder:
            submit, answers = self._submitter(folder), folder / _ANSWERS
            answers.mkdir()

            def ready(workers: list[_SlurmWorker]) -> list[_SlurmWorker]:
                while True:
                    there = set(os.listdir(answers))  # one look for all: the disk may be far away
                    if found := [one for one in workers if one.is_ready(there)]:
                        return found
                    time.sleep(_POLL)

            def start(place: int) -> _SlurmWorker:
                return _SlurmWorker(submit, folder / uuid.uuid4().hex, answers, local=local)

            threading.Thread(target=_beat, args=(folder / "alive", alive), daemon=True).start()
            try:
                yield from schedule(next_job, Pool(self._count, start, ready))
            finally:
                alive.set()

    def _submitter(self, folder: Path) -> Callable[..., Any]:
        """What makes a worker a Slurm job. Raises: BadParameter."""
        submitit: Any = import_module("submitit")
        needs = {"name": "quintain", "timeout_min": 240, **self._needs}
        try:
            executor = submitit.AutoExecutor(folder=folder / "logs", cluster=self._cluster)
            executor.update_parameters(**needs | self._options)
        except Exception as error:  # what submitit raises is its own, of many kinds
            raise BadParameter(f"--slurm: {one_line(error)}") from None

        def submit(*arguments: object) -> Any:
            try:
                with redirect_stderr(StringIO()):  # it repeats what the error says
                    return executor.submit(_work, *arguments)
            except submitit.core.utils.FailedJobError as error:
                said = " ".join(str(error).split())
                raise QuintainError(f"Slurm takes no worker: {said}") from None

        return submit


def _whole(name: str) -> str:
    """What submitit calls an option: those that are Slurm's alone begin with its name."""
    return name if name in _SHARED or name.startswith(("slurm_", "local_")) else f"slurm_{name}"


def _check_slurm() -> None:
    """Look whether there is a Slurm, and whether it says what became of a job.

    Raises: QuintainError.
    """
    if shutil.which("srun") is None:
        raise QuintainError("--executor slurm: there is no Slurm here (no command srun)")
    if shutil.which("sacct") is None:
        raise QuintainError("--executor slurm: there is no command sacct")
    command = ["sacct", "--noheader", "--starttime=now"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        said = " ".join(asked.stderr.split())
        raise QuintainError(f"--executor slurm needs sacct, to see when a worker is lost: {said}")


class _SlurmWorker:
    """A Slurm job, the folder that it takes jobs from, and the job that it is at work on."""

    def __init__(
        self, submit: Callable[..., Any], folder: Path, answers: Path, *, local: bool
    ) -> None:
        self.job: Job | None = None
        self.held: int | None = None
        self.starting = True
        self._folder, self._answers, self._local = folder, answers, local
        self._count = 0  # jobs sent
        folder.mkdir()
        self._slurm = submit(folder, answers, torch.get_num_threads())
        self._looked = time.monotonic()

    def begin(self, job: Job) -> None:
        """Send a job."""
        self.job, self.held = job, job.number
        self._count += 1
        _put(self._folder / f"{self._count}.job", RemoteJob(job, software(), self._folder))

    @property
    def _awaited(self) -> str:
        return f"{self._folder.name}.{self._count}"  # 0: that it has started

    @property
    def _ended(self) -> str:
        return f"{self._folder.name}.ended"

    def is_ready(self, there: Set[str]) -> bool:
        """Whether there is an answer, or the worker has started, has ended, or is lost."""
        if self._awaited in there or self._ended in there:
            return True
        if time.monotonic() - self._looked < _LOOK:
            return False
        self._looked = time.monotonic()
        return bool(self._slurm.done())  # Slurm is asked about all workers at once

    def answer(self) -> Answer | Lost | None:
        """Take the answer, or that it has started."""
        self.job = None
        path = self._answers / self._awaited
        if not path.exists():
            if self._count > 1 and (self._answers / self._ended).exists():
                return Lost("ended when its time was up", begun=False)
            said = last_lines(self._folder / _OUTPUT)
            return Lost(f"was lost ({_ending(self._slurm)})", said)
        found = pickle.loads(path.read_bytes())
        path.unlink()
        if self.starting:
            self.starting = False
            return None
        return usable(found)

    def end(self) -> None:
        """End the worker, whatever it does. One on this machine is waited for."""
        shutil.rmtree(self._folder, ignore_errors=True)  # one that waits for a job then ends itself
        with suppress(Exception):
            if self.job is None:
                self._wait()
            self._slurm.cancel()
            self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + (_PATIENCE if self._local else 0.0)
        while time.monotonic() < deadline and not self._slurm.done():
            time.sleep(_POLL)


def _ending(slurm: Any) -> str:
    """The last line that a lost worker wrote, or how Slurm says that it ended."""
    with suppress(Exception):
        said = [line for line in (slurm.stderr() or "").splitlines() if line.strip()]
        return str(said[-1] if said else slurm.state)
    return "nobody knows why"


def _beat(file: Path, ended: threading.Event) -> None:
    """Show workers that this process is there, until it ends."""
    count = 0
    while not ended.is_set():
        with suppress(OSError):
            file.write_text(str(count))
        count += 1
        ended.wait(_BEAT)


def _put(path: Path, value: object) -> None:
    """Write a value, whole or not at all, for a process that waits for the file."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(pickle.dumps(value))
    os.replace(temporary, path)


def _work(folder: Path, answers: Path, threads: int) -> None:
    """What a worker does: jobs in the order that they are sent, until nobody sends any more.

    When Slurm says that its time is nearly up it ends after the job that it is at work on.
    """
    ending = threading.Event()
    signal.signal(_warning(), lambda number, frame: ending.set())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(threads)
    output = folder / _OUTPUT
    redirect(output)
    _put(answers / f"{folder.name}.0", None)
    beat, last, pause = "", time.monotonic(), _POLL
    while time.monotonic() - last < _SILENCE and folder.exists():
        waiting = sorted(folder.glob("*.job"), key=lambda path: int(path.stem))
        for path in waiting:
            job: RemoteJob = pickle.loads(path.read_bytes())
            answer = job.answer(lambda one: run_with_output(one, output))
            _put(answers / f"{folder.name}.{path.stem}", answer)
            path.unlink()
        if ending.is_set():
            (answers / f"{folder.name}.ended").touch()
            return
        if waiting:
            last, pause = time.monotonic(), _POLL
            continue
        with suppress(OSError):
            now = (folder.parent / "alive").read_text()
            if now != beat:
                beat, last = now, time.monotonic()
        ending.wait(pause)
        pause = min(1.1 * pause, _IDLE)


def _warning() -> signal.Signals:
    """The signal that Slurm sends a worker whose time is nearly up, as submitit asks it to."""
    name: str = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    return signal.Signals[f"SIG{name}"]
