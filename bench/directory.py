"""A run directory: manifest.json, suite.toml, records/, and the tables."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from .errors import RunDirectoryError
from .files import write_text
from .records import read_cell
from .tables import Cell


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def manifest(self) -> Path:
        """What was run, and how to run it again."""
        return self.path / "manifest.json"

    def records(self, *titles: str, key: str) -> Path:
        """One cell's file: named for people, and by content."""
        name = "-".join(re.sub(r"[^\w.]+", "_", title) for title in titles)
        return self.path / "records" / f"{name}-{key[:16]}.parquet"

    def claim(self, suite: Mapping[str, Any], text: str, *, update: bool) -> None:
        """Make the directory this suite's.

        Raises: RunDirectoryError when it belongs to another suite, and `update` does not allow it.
        """
        before = read_manifest(self.path).get("suite") if self.manifest.is_file() else None
        if before is None and self.path.is_dir():
            strangers = [one.name for one in self.path.iterdir() if one.name not in _OURS]
            if strangers:
                raise RunDirectoryError(
                    f"{self.path} is not a run directory and not empty (it holds {strangers[0]}); "
                    "choose another --out"
                )
        if before is not None and before != suite and not update:
            key = _first_difference(before, suite)
            raise RunDirectoryError(
                f"{self.path} holds the run of another version of this suite ({key}); "
                "choose another --out, or pass --update to keep the cells that still apply"
            )
        write_text(self.path / "suite.toml", text)

    def write_manifest(self, about: Mapping[str, Any]) -> None:
        """Write the manifest."""
        write_text(self.manifest, json.dumps(about, indent=1) + "\n")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table as CSV."""
        write_text(self.path / name, table.to_csv(index=False, lineterminator="\n"))


_OURS = {"manifest.json", "suite.toml", "records", "tradeoff.csv", "leaderboard.csv", ".lock"}


@contextmanager
def opened(path: Path) -> Iterator[RunDirectory]:
    """Hold a run directory against other processes.

    Raises: RunDirectoryError when it cannot be written or another run holds it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with FileLock(path / ".lock", timeout=0):
            yield RunDirectory(path)
    except Timeout:
        raise RunDirectoryError(f"{path} is in use by another run") from None
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror or error}") from None


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a run directory's manifest.

    Raises: RunDirectoryError when there is none or it is damaged.
    """
    file = path / "manifest.json"
    try:
        about = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise RunDirectoryError(f"{path} is not a run directory: it has no manifest.json") from None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{file} cannot be read: {error}") from None
    if not isinstance(about, dict) or not isinstance(about.get("cells"), list):
        raise RunDirectoryError(f"{file} is not a manifest")
    return about


def read_cells(path: Path) -> tuple[list[Cell], list[tuple[str, ...]]]:
    """Read the finished cells of a run directory, and name those that failed.

    Raises: RunDirectoryError.
    """
    about = read_manifest(path)
    done = [one for one in about["cells"] if one["status"] == "done"]
    failed = [
        tuple(one[name] for name in ("dataset", "norm", "model", "defense", "attack"))
        for one in about["cells"]
        if one["status"] == "failed"
    ]
    cells = []
    for one in done:
        cell = read_cell(path / one["file"])
        cells.append(Cell(cell.about | one["titles"], cell.records))
    return cells, failed


def _first_difference(before: Any, after: Any, at: str = "") -> str:
    """Where two JSON values first differ, as `attacks[2].steps: 20 before, 40 now`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            if before.get(key) != after.get(key):
                inner = f"{at}.{key}" if at else str(key)
                return _first_difference(before.get(key), after.get(key), inner)
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True), 1):
            if old != new:
                return _first_difference(old, new, f"{at}[{number}]")
    return f"{at}: {_short(before)} before, {_short(after)} now"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
