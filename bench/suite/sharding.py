"""How a cell is divided into shards: by the suite, or so that each takes about a minute."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..api.errors import RunDirectoryError
from ..store.hashing import hash_file
from ..store.shards import adversarials_file, read_about, read_shard, shard_file, shard_folder
from .jobs import CellJob, ShardJob
from .plan import Shard

SECONDS = 60.0  # that a shard takes by the estimate: handing it out costs a thousandth of that
_SMALLEST = 32  # examples of a shard that nobody asked for: fewer do not fill a batch


def divided(
    job: CellJob, examples: int, wanted: int | None, passes: int, pass_seconds: float
) -> tuple[Shard, ...]:
    """The shards of a cell, in order; none where it is computed as one.

    wanted: examples of a shard, as the suite says. Else they follow from what an example costs:
    passes: about how many forward passes. pass_seconds: of each. Where an earlier run left shards
    of the cell behind, theirs is the size.
    """
    size = wanted or _size_left_behind(job)
    if size is None:
        count = math.ceil(examples * passes * pass_seconds / SECONDS)
        size = max(_SMALLEST, math.ceil(examples / max(1, count)))
    if size >= examples:
        return ()
    starts = range(0, examples, size)
    return tuple(Shard(job.place, start, min(start + size, examples)) for start in starts)


def _size_left_behind(job: CellJob) -> int | None:
    sizes = set()
    for file in shard_folder(job.path).glob("*-*.safetensors"):
        about = read_about(file)
        if about.get("key") == job.key:
            sizes.add(about["stop"] - about["start"])
    return max(sizes, default=None)


def is_there(job: CellJob, shard: Shard) -> bool:
    """Whether a shard's file is there, and holds what this job would compute."""
    wanted = ShardJob(job, shard)
    try:
        about, _ = read_shard(wanted.path)
    except RunDirectoryError:
        return False
    same = all(about.get(name) == value for name, value in wanted.identity.items())
    return same and (not job.run.suite.save_adversarials or _saved(wanted.path, about))


def _saved(shard: Path, about: Mapping[str, Any]) -> bool:
    """Whether the adversarial examples of a shard are there as they were saved."""
    file = adversarials_file(shard)
    return file.is_file() and hash_file(file) == about.get("adversarials")


def files(job: CellJob, shards: tuple[Shard, ...]) -> tuple[Path, ...]:
    """Where the shards of a cell are."""
    return tuple(shard_file(job.path, one.start, one.stop) for one in shards)
