"""Jobs: the pieces of a run, as values that any process can work on (`workspace.py`).

A job names the defended model and the task by their numbers in the suite that it carries. Plugins
themselves do not travel: each process builds them from the suite, as the command did, and a cell's
key says whether it built the same.
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from ..store.records import Finished
from ..store.shards import shard_file
from .config import Suite
from .plan import Place, Shard


@dataclass(frozen=True)
class Run:
    """What all jobs of a run share: enough to make its plan in any process.

    It comes to a process with every job, but is pickled once, and unpickled once in a process.

    file: what messages call the suite. folder: what its paths are relative to.
    """

    suite: Suite
    file: str
    folder: Path
    device: torch.device
    cache: Path | None

    def __reduce__(self) -> tuple[Callable[[bytes], "Run"], tuple[bytes]]:
        return _unpickled, (self._pickled,)

    @cached_property
    def _pickled(self) -> bytes:
        return pickle.dumps((self.suite, self.file, self.folder, self.device, self.cache))


@lru_cache(maxsize=1)
def _unpickled(pickled: bytes) -> Run:
    return Run(*pickle.loads(pickled))


@dataclass(frozen=True)
class NetworkJob:
    """Train or load a defended model's network, and look at it.

    key: the network's. precisions: what searches computed in before: the hash of a network's
    weights -> it. timed: whether to measure how long it takes for an image.
    """

    run: Run
    number: int
    key: str
    precisions: Mapping[str, Mapping[str, Any]]
    timed: bool


@dataclass(frozen=True)
class CellJob:
    """Compute one cell, and write its records.

    network: what the manifest says of the defended model's network. source_weights: the hash of the
    borrowed one's. network_keys: of both. files: that code of the user's read before. earlier: a
    kind of task -> the records of the cells of it that came first. titles: what the cell is called.
    path: of the records. shards: the files of the parts that it is made of, where these are
    computed already.
    """

    run: Run
    place: Place
    key: str
    path: Path
    network: Mapping[str, Any]
    source_weights: str | None
    network_keys: tuple[str, ...]
    files: frozenset[str]
    earlier: Mapping[str, tuple[Path, ...]]
    titles: Mapping[str, Any]
    shards: tuple[Path, ...] = ()

    @property
    def number(self) -> int:
        """The defended model, whose network is at work."""
        return self.place[0]


@dataclass(frozen=True)
class ShardJob:
    """Compute some examples of a cell, and keep what they showed until the cell is whole."""

    cell: CellJob
    shard: Shard

    @property
    def run(self) -> Run:
        """What all jobs of the run share."""
        return self.cell.run

    @property
    def number(self) -> int:
        """The defended model, whose network is at work."""
        return self.cell.number

    @property
    def path(self) -> Path:
        """The shard's file."""
        return shard_file(self.cell.path, self.shard.start, self.shard.stop)

    @property
    def identity(self) -> dict[str, Any]:
        """What must be true of a file that holds this shard."""
        return {
            "key": self.cell.key,
            "weights": [self.cell.network["weights_hash"], self.cell.source_weights],
            "precision": self.cell.network["precision"],
            "start": self.shard.start,
            "stop": self.shard.stop,
        }


Job = NetworkJob | CellJob | ShardJob


@dataclass(frozen=True)
class Failed:
    """Why a job came to nothing, in a line. details: where it did, and what was printed."""

    reason: str
    details: str = ""


@dataclass(frozen=True)
class NetworkFound:
    """What the manifest says of a network; the files that code of the user's read to make it.

    seconds: that it took. pass_seconds: of a forward pass, for each image of a
    batch, where that was to be measured.
    """

    about: Mapping[str, Any]
    files: frozenset[str]
    seconds: float
    pass_seconds: float


@dataclass(frozen=True)
class CellWritten:
    """A cell whose records are written. line: what to tell people of it."""

    cell: Finished
    line: str


@dataclass(frozen=True)
class ShardWritten:
    """A shard whose file is written."""


Answer = NetworkFound | CellWritten | ShardWritten | Failed
