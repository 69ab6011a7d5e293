"""A run directory: manifest.json, suite.toml, records/, and the tables."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ..api.errors import RunDirectoryError, reason
from ..api.shared.file_checks import check_regular
from .atomic import meant_for, write_text
from .hashing import hash_json
from .privacy import private_values

if TYPE_CHECKING:
    import pandas as pd

    from .cell import Cell, Lost


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def manifest(self) -> Path:
        """What was run, and how to run it again."""
        return self.path / "manifest.json"

    @property
    def log(self) -> Path:
        """What the runs into this directory said, with the time."""
        return self.path / _LOG

    @property
    def page(self) -> Path:
        """The page of the run."""
        return self.path / _PAGE

    def records(self, *titles: str, key: str) -> Path:
        """One cell's file: named for people, and by content."""
        plain = (re.sub(r"[^\w.]+", "_", title).encode()[:_LONGEST] for title in titles)
        name = "-".join(one.decode(errors="ignore") for one in plain)
        return self.path / "records" / f"{name}-{key[:16]}.parquet"

    def check(self, suite: Mapping[str, Any], text: str, *, update: bool) -> None:
        """Look whether this suite may be run here. Nothing is written.

        Raises: RunDirectoryError when the directory is somebody else's, or belongs to another suite
        and `update` does not allow it.
        """
        self._check_kinds()
        if not self.manifest.is_file():
            _refuse_strangers(self.path)
            if not update and self._contains_another(text):
                raise RunDirectoryError(
                    f"{self.path} holds another suite.toml; choose another --out, or pass "
                    "--update to write over it"
                )
            return
        before = private_values(read_manifest(self.path).get("suite"))
        suite = private_values(suite)
        if before != suite and not update:
            key = _first_difference(before, suite)
            raise RunDirectoryError(
                f"{self.path} holds the run of another version of this suite ({key}); "
                "choose another --out, or pass --update to keep the cells that still apply"
            )

    def _check_kinds(self) -> None:
        """Refuse a folder or a pipe where a file of ours goes. Raises: RunDirectoryError."""
        records = self.path / "records"
        if records.exists() and not records.is_dir():
            raise RunDirectoryError(f"{records} is not a folder; move it away")
        for name in sorted(_OURS - _FOLDERS):
            path = self.path / name
            try:
                if path.exists():
                    check_regular(path)
            except OSError as error:
                raise RunDirectoryError(f"{path}: {reason(error)}; move it away") from None

    def _contains_another(self, text: str) -> bool:
        there = self.path / "suite.toml"
        return there.is_file() and there.read_bytes() != text.encode()

    def write_manifest(self, about: Mapping[str, Any]) -> None:
        """Write the manifest, with a hash of all that it says."""
        sealed = {**about, _SEAL: _seal(about)}
        write_text(self.manifest, _laid_out(sealed) + "\n")

    def write_table(self, name: str, table: "pd.DataFrame") -> None:
        """Write a table as CSV."""
        from .spreadsheet import to_csv

        write_text(self.path / name, to_csv(table))


_SEAL = "seal"
_TABLES = {"tradeoff.csv", "leaderboard.csv", "queries.csv", "transfer.csv", "detection.csv"}
_LONGEST = 40  # bytes of a title in a file's name: with three of them it has less than 255
_PAGE, _LOG = "report.html", "quintain.log"
_WRITTEN = ("records", "examples")  # by a run; besides, a folder of `shards` for each cell
_FOLDERS = {*_WRITTEN, "explain", "shards", ".workers"}
_OURS = {"manifest.json", "suite.toml", ".lock", _PAGE, _LOG, *_FOLDERS, *_TABLES}


def refuse_strangers(path: Path) -> None:
    """Refuse a directory that holds something other than a run. Nothing is read or written.

    Raises: RunDirectoryError.
    """
    with _writing(path):
        if path.exists() and not RunDirectory(path).manifest.is_file():
            _refuse_strangers(path)


def _refuse_strangers(path: Path) -> None:
    there = sorted(one.name for one in path.iterdir())
    strangers = [one for one in there if one not in _OURS and not meant_for(one)]
    if strangers:
        raise RunDirectoryError(
            f"{path} is not a run directory and not empty (it holds {strangers[0]}); "
            "choose another --out"
        )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {reason(error)}") from None


@contextmanager
def opened(
    path: Path, suite: Mapping[str, Any], text: str, *, update: bool
) -> Iterator[RunDirectory]:
    """Make a directory a suite's, and hold it against other processes.

    Raises: RunDirectoryError when it cannot be written, another run holds it, or as `check`: then
    nothing is written.
    """
    directory = RunDirectory(path)
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
        directory.check(suite, text, update=update)
        try:
            with FileLock(path / ".lock", timeout=0):
                directory.check(suite, text, update=update)
                _sweep(path)
                write_text(path / "suite.toml", text)
                try:
                    yield directory
                finally:
                    _sweep(path)
        except Timeout:
            raise RunDirectoryError(f"{path} is in use by another run") from None


def _sweep(path: Path) -> None:
    """Remove what a run, or a worker of it, that was killed was just writing."""
    for folder in (path, *(path / name for name in _WRITTEN), *(path / "shards").glob("*")):
        for one in folder.glob(".*.tmp"):
            if meant_for(one.name):
                one.unlink(missing_ok=True)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a run directory's manifest.

    Raises: RunDirectoryError when there is none or it is damaged.
    """
    file = path / "manifest.json"
    try:
        check_regular(file)
        about = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise RunDirectoryError(f"{path} is not a run directory: it has no manifest.json") from None
    except NotADirectoryError:
        raise RunDirectoryError(f"{path} is a file, not a run directory") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, reason(error)) from None
    if not isinstance(about, dict) or not isinstance(about.get("cells"), list):
        raise _damaged(file, "it is not a manifest")
    seal = about.pop(_SEAL, None)
    if seal is not None and seal != _seal(about):  # earlier versions wrote none
        raise _damaged(file, "it was changed after it was written")
    return about


def _seal(about: Mapping[str, Any]) -> str:
    return hash_json(json.loads(json.dumps(about)))


def _damaged(file: Path, why: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"{file} cannot be read: {why}; if this is a run of yours, delete it and run the "
        "suite again: cells whose records are whole are kept"
    )


def lost_cell(entry: Mapping[str, Any]) -> "Lost | None":
    """What a manifest's entry of a cell without records says; None where no table lacks it.

    Raises: KeyError when the entry is not whole.
    """
    from .cell import Lost

    if "targets" in entry:  # the worst case does not lack a targeted attack
        return None
    epsilon, examples = (entry.get(name, "") for name in ("leaderboard_epsilon", "examples"))
    return Lost(
        entry["dataset"],
        entry["norm"],
        entry["model"],
        entry["defense"],
        entry["attack"],
        entry["status"],
        epsilon,
        entry.get("recipe"),
        examples,
    )


def read_cells(path: Path) -> "tuple[list[Cell], list[Lost]]":
    """Read the finished cells of a run directory, and name those that failed or are missing.

    Each must be the very file that the manifest names.

    Raises: RunDirectoryError.
    """
    about = read_manifest(path)  # before what takes long to import
    from .records import read_cell

    cells: list[Cell] = []
    lost: list[Lost] = []
    try:
        for one in about["cells"]:
            if one["status"] != "done":
                lost += [found] if (found := lost_cell(one)) is not None else []
                continue
            file = path / one["file"]
            cell = read_cell(file, one.get("sha256"))
            if "key" in one and cell.about.get("key") != one["key"]:
                raise _damaged(file, "it holds another cell than the manifest says")
            cells.append(cell.named(one["titles"], one.get("seconds")))
    except (KeyError, TypeError, ValueError) as error:
        why = f"an entry of its cells is not whole ({type(error).__name__}: {reason(error)})"
        raise _damaged(path / "manifest.json", why) from None
    return cells, lost


def _laid_out(value: Any, margin: str = "\n") -> str:
    """JSON with a line for each key and for each entry of a list of tables.

    Indenting everything, which Python's encoder does in Python, took most of a second for 10,000
    cells, and a line for each number of a list.
    """
    inner = margin + " "
    if isinstance(value, Mapping) and value:
        lines = [f"{json.dumps(key)}: {_laid_out(one, inner)}" for key, one in value.items()]
        return "{" + inner + f",{inner}".join(lines) + margin + "}"
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        return "[" + inner + f",{inner}".join(map(json.dumps, value)) + margin + "]"
    return json.dumps(value)


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
