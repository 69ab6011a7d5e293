"""Jobs on a Ray cluster: one machine's cores, or many machines.

Needs the extra `ray`. Records are the same files, to the byte, as one process writes.
"""

import logging
import math
import os
import socket
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ...api.errors import QuintainError, one_line, reason
from ...api.shared.interrupts import sigterm_kept
from ...api.shared.progress_bars import say
from ...store.environment import software
from ..jobs import Answer, Failed, Job
from .mirror import Brought, Inputs, Mirror, files_of_job, files_of_suite, keep
from .output import last_lines, redirect, run_with_output
from .remote import Refused, RemoteJob, usable, workers_folder
from .scheduling import LIFETIME, Answers, Lost, NextJob, Pool, schedule

_PATIENCE = 5.0  # seconds for a cluster to answer
_KINDS = {"num_cpus": "CPU", "num_gpus": "GPU"}
_LOOK = 10.0  # seconds between two looks at how large the cluster is


class RayCluster:
    """Does jobs in workers of a Ray cluster.

    address: of a cluster that runs already, such as "auto" or "10.0.0.1:6379"; None starts one on
    this machine for the while. workers: at most; where there are fewer places some wait for one, so
    that a cluster grows that does so by demand. By default as many as there are places for, also
    when there come to be more. needs: the cores of each, by default one, and its GPUs, or its share
    of one. shared: the run directory. A worker that does not see it gets the files that it takes,
    and sends those back that it would have written.

    A worker that is lost, or whose machine is, is replaced, and its job done again, up to three
    times. A worker with other versions of Python, torch or quintain is refused.

    Raises: QuintainError without Ray, where no cluster answers, where it has no GPU for jobs that
    want one, and where a worker has other versions.
    """

    def __init__(
        self,
        address: str | None,
        workers: int | None,
        shared: Path,
        needs: tuple[int | None, float],
    ) -> None:
        if find_spec("ray") is None:
            raise QuintainError(
                "--executor ray needs the package ray, not installed: "
                "pip install 'quintain[ray]' brings it"
            )
        self.name = "ray"
        self.concurrent = workers != 1
        _check_reachable(address)
        self._address, self._workers = address, workers
        self._needs = {"num_cpus": needs[0] or 1, "num_gpus": needs[1]}
        self._shared = shared.absolute()

    def run(self, next_job: NextJob) -> Answers:
        """Do jobs until there are none; a job whose worker is lost is done again."""
        ray: Any = import_module("ray")

        def ready(workers: list[_RayWorker]) -> list[_RayWorker]:
            done, _ = ray.wait([worker.pending for worker in workers], timeout=_LOOK)
            return [worker for worker in workers if worker.pending in done]

        try:
            self._connect(ray)
            places = _Places(ray, self._needs)
            with workers_folder(self._shared) as folder:
                sender = _Sender(ray, self._shared)

                def start(place: int) -> _RayWorker:
                    return _RayWorker(ray, self._needs, folder, sender)

                asked = self._workers is not None
                pool = Pool(
                    self._workers or sys.maxsize,
                    start,
                    ready,
                    lambda workers: asked or len(workers) < places.count(),
                    LIFETIME,
                )
                yield from schedule(next_job, pool)
        finally:
            ray.shutdown()

    def _connect(self, ray: Any) -> None:
        """Connect to the cluster. Raises: QuintainError, also where no worker finds a place."""
        try:
            with sigterm_kept():
                ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise QuintainError(f"no Ray cluster at {self._address}: {one_line(error)}") from None
        there = ray.cluster_resources()
        for name, needed in self._needs.items():
            kind = _KINDS[name]
            if (found := there.get(kind, 0)) < needed:
                raise QuintainError(
                    f"the Ray cluster has {found:g} {kind}s, and a worker needs {needed:g}"
                )


class _Places:
    """How many workers a cluster has places for, which may become more or fewer."""

    def __init__(self, ray: Any, needs: dict[str, float]) -> None:
        self._ray, self._needs = ray, needs
        self._looked, self._count = -math.inf, 0

    def count(self) -> int:
        """Their number, as it was a few seconds ago."""
        if time.monotonic() - self._looked > _LOOK:
            self._looked, there = time.monotonic(), self._ray.cluster_resources()
            needs = [(_KINDS[name], needed) for name, needed in self._needs.items() if needed]
            self._count = min(int(there.get(kind, 0) / needed) for kind, needed in needs)
        return self._count


def _check_reachable(address: str | None) -> None:
    """Look whether anything listens at HOST:PORT: Ray itself waits for minutes.

    Raises: QuintainError.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or _last_started()
    host, colon, port = (address or "").rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise QuintainError(f"no Ray cluster at {address}: {reason(error)}") from None


def _last_started() -> str | None:
    """The cluster that was last started on this machine, as Ray notes it, gone or not."""
    try:
        return (Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster").read_text().strip()
    except OSError:
        return None


class _Sender:
    """What workers are sent that do not see the run's files. out: the run directory.

    Networks, and what the suite's folder holds, are put into Ray's object store, once.
    """

    def __init__(self, ray: Any, out: Path) -> None:
        self._ray, self._out = ray, out
        self._suite: Any = None
        self._networks: dict[tuple[Path, int], Any] = {}

    def inputs(self, job: Job) -> Inputs:
        """What a job takes from files. Raises: QuintainError when that is too much."""
        if self._suite is None:
            say(f"a worker does not see {self._out}: files are sent there, and results back")
            self._suite = self._ray.put(files_of_suite(job.run, self._out))
        return Inputs(self._out, self._suite, {one: self._put(one) for one in files_of_job(job)})

    def keep(self, brought: Brought, job: Job) -> Answer:
        """Write what a worker sent."""
        return keep(brought, job.run, self._out)

    def _put(self, path: Path) -> Any:
        if path.is_relative_to(self._out):
            return self._ray.put(path.read_bytes())
        key = path, path.stat().st_mtime_ns
        if key not in self._networks:
            self._networks[key] = self._ray.put(path.read_bytes())
        return self._networks[key]


class _RayWorker:
    """An actor, and the job that it is at work on. held: the network that it has in memory."""

    def __init__(self, ray: Any, needs: dict[str, float], folder: Path, sender: _Sender) -> None:
        self._ray, self._folder, self._sender = ray, folder, sender
        self._output = folder / f"{uuid.uuid4().hex}.log"
        self._sees = True  # the run's files
        self.job: Job | None = None
        self.held: int | None = None
        self.starting = True
        actor = ray.remote(_Actor).options(**needs, max_restarts=0)
        self._actor = actor.remote(torch.get_num_threads())
        self.pending = self._actor.start.remote(self._output)

    def begin(self, job: Job) -> None:
        """Send a job."""
        self.job, self.held = job, job.number
        sent = RemoteJob(job, software(), self._folder if self._sees else None)
        inputs = None if self._sees else self._sender.inputs(job)
        self.pending = self._actor.answer.remote(sent, inputs)

    def answer(self) -> Answer | Lost | None:
        """Take the answer, or that it has started."""
        job, self.job = self.job, None
        try:
            found = self._ray.get(self.pending)
        except self._ray.exceptions.RayTaskError as error:
            return Failed(one_line(error))
        except self._ray.exceptions.RayError as error:
            return Lost(f"was lost ({_why(error)})", last_lines(self._output))
        if self.starting:
            self.starting, self._sees = False, found
            return None
        if job is not None and isinstance(found, Brought):
            return self._sender.keep(found, job)
        return usable(found)

    def end(self) -> None:
        """End the worker, whatever it does."""
        with suppress(Exception):
            if not self._sees and self.job is None:
                self._ray.get(self._actor.close.remote(), timeout=_PATIENCE)
            self._ray.kill(self._actor)


def _why(error: Exception) -> str:
    """Why a worker was lost, in a line; of one that could not even begin, the error there alone."""
    if getattr(error, "actor_init_failed", False):
        return str(error).splitlines()[-1].strip()
    return one_line(error)


class _Actor:
    """What a worker is: a process that keeps a plan, the data and networks from job to job."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._mirror: Mirror | None = None

    def start(self, output: Path) -> bool:
        """Say whether the run's files are to be seen here, once there is a place for this worker.

        output: where what is printed goes, in a folder that is one of them.
        """
        sees = output.parent.exists()
        self._mirror = None if sees else Mirror()
        self._output = output if self._mirror is None else self._mirror.output
        redirect(self._output)
        return sees

    def answer(self, job: RemoteJob, inputs: Inputs | None) -> Answer | Brought | Refused:
        """Do a job; or why this worker cannot be used."""
        if inputs is None or self._mirror is None:
            return job.answer(self._work)
        refused = job.refused()
        return refused or self._mirror.answer(job.job, inputs, import_module("ray").get, self._work)

    def _work(self, job: Job) -> Answer:
        return run_with_output(job, self._output)

    def close(self) -> None:
        """Remove what is there for this worker alone."""
        if self._mirror is not None:
            self._mirror.close()
