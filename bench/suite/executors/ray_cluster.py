"""Jobs on a Ray cluster: one machine's cores, or many machines that share a file system.

Needs the extra `ray`. Records are the same files, to the byte, as one process writes.
"""

import logging
import os
import socket
import tempfile
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ...api.errors import QuintainError, one_line, reason
from ...store.environment import software
from ..jobs import Answer, Failed, Job
from .remote import Refused, RemoteJob, shared_token, usable
from .scheduling import Answers, Lost, NextJob, schedule

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
        self.name = "ray"
        self.concurrent = workers != 1
        _check_reachable(address)
        self._address, self._workers, self._device = address, workers, device
        self._shared = shared.absolute()

    def run(self, next_job: NextJob) -> Answers:
        """Do jobs until there are none; a job whose worker is lost is done again."""
        ray: Any = import_module("ray")

        def ready(workers: list[_RayWorker]) -> list[_RayWorker]:
            done, _ = ray.wait([worker.pending for worker in workers])
            return [worker for worker in workers if worker.pending in done]

        try:
            count, needs = self._connected(ray)
            with shared_token(self._shared) as token:
                yield from schedule(next_job, count, lambda _: _RayWorker(ray, needs, token), ready)
        finally:
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


class _RayWorker:
    """An actor, and the job that it is at work on. held: the network that it has in memory."""

    def __init__(self, ray: Any, needs: dict[str, int], token: Path) -> None:
        self._ray, self._token = ray, token
        self.job: Job | None = None
        self.held: int | None = None
        self.starting = True
        actor = ray.remote(_Actor).options(**needs, max_restarts=0)
        self._actor = actor.remote(torch.get_num_threads())
        self.pending = self._actor.start.remote()

    def begin(self, job: Job) -> None:
        """Send a job."""
        self.job, self.held = job, job.number
        self.pending = self._actor.answer.remote(RemoteJob(job, software(), self._token))

    def answer(self) -> Answer | Lost | None:
        """Take the answer, or that it has started."""
        self.job = None
        try:
            found = self._ray.get(self.pending)
        except self._ray.exceptions.RayTaskError as error:
            return Failed(one_line(error))
        except self._ray.exceptions.RayError as error:
            return Lost(f"was lost ({one_line(error)})")
        if self.starting:
            self.starting = False
            return None
        return usable(found)

    def end(self) -> None:
        """End the worker, whatever it does."""
        with suppress(Exception):
            self._ray.kill(self._actor)


class _Actor:
    """What a worker is: a process that keeps a plan, the data and networks from job to job."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def start(self) -> None:
        """Answer when there is a place for this worker."""

    def answer(self, job: RemoteJob) -> Answer | Refused:
        """Do a job; or why this worker cannot be used."""
        return job.answer()
