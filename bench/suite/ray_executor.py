"""Jobs on a Ray cluster: one machine's cores, or many machines that share a file system.

Needs the extra `ray`. Records are the same files, to the byte, as one process writes.
"""

import logging
import socket
import uuid
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..api.errors import QuintainError, one_line, reason
from ..store.environment import software
from .executors import ATTEMPTS, Answers, NextJob, schedule
from .jobs import Answer, Failed, Job, run_job

_PATIENCE = 5.0  # seconds for a cluster to answer


class RayCluster:
    """Does jobs in workers of a Ray cluster, each with one core, and a GPU for jobs on GPUs.

    address: of a cluster that runs already, such as "auto" or "10.0.0.1:6379"; None starts one on
    this machine for the while. workers: at most; by default as many as the cluster has cores, or
    GPUs. shared: a folder that every worker must see, since records are written by the workers.

    A worker that is lost, or whose machine is, is replaced, and its job done again, up to three
    times. A worker with other versions of Python, torch or quintain is refused.

    Raises: QuintainError without Ray, where no cluster answers, where it has no GPU for jobs that
    want one, and where a worker does not see the folder or has other versions.
    """

    def __init__(
        self, address: str | None, workers: int | None, device: torch.device, shared: Path
    ) -> None:
        if find_spec("ray") is None:
            raise QuintainError(
                "--executor ray needs the package ray, not installed: "
                "pip install 'quintain[ray]' brings it"
            )
        _check_reachable(address)
        self._address, self._workers, self._device = address, workers, device
        self._shared = shared.absolute()

    def run(self, next_job: NextJob) -> Answers:
        """Do jobs until there are none; a job whose worker is lost is done again."""
        ray: Any = import_module("ray")
        self._shared.mkdir(parents=True, exist_ok=True)
        token = self._shared / f".seen-{uuid.uuid4().hex}.tmp"

        def ready(workers: list[_RayWorker]) -> list[_RayWorker]:
            done, _ = ray.wait([worker.pending for worker in workers])
            return [worker for worker in workers if worker.pending in done]

        try:
            count, needs = self._connected(ray)
            token.touch()
            yield from schedule(next_job, count, lambda: _RayWorker(ray, needs, token), ready)
        finally:
            token.unlink(missing_ok=True)
            ray.shutdown()

    def _connected(self, ray: Any) -> tuple[int, dict[str, int]]:
        """Connect to the cluster: how many workers it may have, and what each needs."""
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise QuintainError(f"no Ray cluster at {self._address}: {one_line(error)}") from None
        kind = "GPU" if self._device.type == "cuda" else "CPU"
        there = int(ray.cluster_resources().get(kind, 0))
        if there < 1:
            raise QuintainError(f"the Ray cluster has no {kind} for jobs on {self._device}")
        needs = {"num_cpus": 1, "num_gpus": 1 if kind == "GPU" else 0}
        return min(self._workers or there, there), needs


def _check_reachable(address: str | None) -> None:
    """Look whether anything listens at HOST:PORT: Ray itself waits for minutes.

    Raises: QuintainError.
    """
    host, colon, port = (address or "").rpartition(":")
    if not colon or not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise QuintainError(f"no Ray cluster at {address}: {reason(error)}") from None


class _RayWorker:
    """An actor, and the job that it is at work on. held: the network that it has in memory."""

    def __init__(self, ray: Any, needs: dict[str, int], token: Path) -> None:
        self._ray, self._needs, self._token = ray, needs, token
        self.job: Job | None = None
        self.held: int | None = None
        self.pending: Any = None
        self._attempts = 0
        self._start()

    def _start(self) -> None:
        actor = self._ray.remote(_Actor).options(**self._needs, max_restarts=0)
        self._actor = actor.remote(torch.get_num_threads())

    def begin(self, job: Job) -> None:
        """Send a job."""
        self.job, self._attempts = job, 0
        self._send()

    def _send(self) -> None:
        self._attempts += 1
        self.held = None if self.job is None else self.job.number
        self.pending = self._actor.answer.remote(self.job, software(), str(self._token))

    def answer(self) -> tuple[Job, Answer] | None:
        """Take the answer. None where the worker is lost, and another begins the job again."""
        job = self.job
        assert job is not None
        try:
            found = self._ray.get(self.pending)
        except self._ray.exceptions.RayTaskError as error:
            found = Failed(one_line(error))
        except self._ray.exceptions.RayError as error:
            self._start()
            if self._attempts < ATTEMPTS:
                self._send()
                return None
            self.held = None
            why = one_line(error)
            found = Failed(f"the worker at work on it was lost, {ATTEMPTS} times: {why}")
        if isinstance(found, str):  # the worker cannot be used
            raise QuintainError(found)
        self.job = None
        return job, found

    def end(self) -> None:
        """End the worker, whatever it does."""
        with suppress(Exception):
            self._ray.kill(self._actor)


class _Actor:
    """What a worker is: a process that keeps a plan, the data and networks from job to job."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def answer(self, job: Job, versions: dict[str, str], token: str) -> Answer | str:
        """Do a job; or why this worker cannot be used."""
        own = software()
        for name, wanted in versions.items():
            if own.get(name) != wanted:
                return (
                    f"a worker of the cluster has {name} {own.get(name)}, this computer {wanted}: "
                    "records are only the same with the same versions"
                )
        if not Path(token).exists():
            return (
                f"a worker of the cluster does not see {Path(token).parent}: the run directory "
                "must be on a file system that all machines share"
            )
        return run_job(job)
