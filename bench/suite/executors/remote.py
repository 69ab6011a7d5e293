"""Jobs on other machines: what a worker there must share with this one before it does any."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...api.errors import QuintainError
from ...store.environment import software
from ..jobs import Answer, Job, run_job


@dataclass(frozen=True)
class RemoteJob:
    """A job, and what a worker must have to do it.

    versions: of what records depend on. token: a file that is there where the folder is shared.
    """

    job: Job
    versions: dict[str, str]
    token: Path

    def answer(self) -> "Answer | Refused":
        """Do the job here, or say why this worker cannot be used."""
        own = software()
        for name, wanted in self.versions.items():
            if own.get(name) != wanted:
                return Refused(
                    f"a worker has {name} {own.get(name)}, this computer {wanted}: "
                    "records are only the same with the same versions"
                )
        if not self.token.exists():
            return Refused(
                f"a worker does not see {self.token.parent}: the run directory must be on a "
                "file system that all machines share"
            )
        return run_job(self.job)


@dataclass(frozen=True)
class Refused:
    """Why a worker cannot be used."""

    reason: str


def usable(answer: Answer | Refused) -> Answer:
    """An answer of a worker. Raises: QuintainError where it cannot be used."""
    if isinstance(answer, Refused):
        raise QuintainError(answer.reason)
    return answer


@contextmanager
def shared_token(folder: Path) -> Iterator[Path]:
    """Within, a file is there that every worker must see."""
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".seen-{uuid.uuid4().hex}.tmp"
    token.touch()
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)
