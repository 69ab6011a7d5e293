"""Jobs on other machines: what a worker there must share with this one before it does any."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ...api.errors import QuintainError
from ...store.environment import software
from ..jobs import Answer, Job


@dataclass(frozen=True)
class Refused:
    """Why a worker cannot be used."""

    reason: str


@dataclass(frozen=True)
class RemoteJob:
    """A job, and what a worker must have to do it.

    versions: of what records depend on. seen: a folder in the run directory that is to be seen;
    None where none need be.
    """

    job: Job
    versions: dict[str, str]
    seen: Path | None

    def refused(self) -> Refused | None:
        """Why this worker cannot be used, if it cannot."""
        own = software()
        for name, wanted in self.versions.items():
            if own.get(name) != wanted:
                return Refused(
                    f"a worker has {name} {own.get(name)}, this computer {wanted}: "
                    "records are only the same with the same versions"
                )
        if self.seen is not None and not self.seen.exists():
            return Refused(
                f"a worker does not see {self.seen}: the run directory must be on a "
                "file system that all machines share"
            )
        return None

    def answer(self, work: Callable[[Job], Answer]) -> Answer | Refused:
        """Do the job here, as `work` does it, or say why this worker cannot be used."""
        return self.refused() or work(self.job)


def usable(answer: Answer | Refused) -> Answer:
    """An answer of a worker. Raises: QuintainError where it cannot be used."""
    if isinstance(answer, Refused):
        raise QuintainError(answer.reason)
    return answer


@contextmanager
def workers_folder(shared: Path) -> Iterator[Path]:
    """Within, there is a folder that workers must see, for what they are sent and what they print.

    What an earlier run left that was killed is removed: at most one is at work in a run directory.
    """
    folder = shared / ".workers" / uuid.uuid4().hex
    shutil.rmtree(folder.parent, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()
