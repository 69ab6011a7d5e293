"""What a run directory holds of a plan already. Nothing is written, and no network is made."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .directory import RunDirectory, read_manifest
from .errors import RunDirectoryError
from .files import check_regular
from .keys import Keys
from .records import read_cell
from .sorties import Subject
from .tables import Cell
from .training import cached_weights


@dataclass(frozen=True)
class Finished:
    """A finished cell. sha256: of its file. cell: its content, where that is in memory."""

    path: Path
    key: str
    sha256: str
    fresh: bool = False
    cell: Cell | None = None

    def read(self) -> Cell:
        """Read its content. Raises: RunDirectoryError."""
        return self.cell or read_cell(self.path, self.sha256)


@dataclass(frozen=True)
class Holding:
    """A subject whose network the manifest remembers, and its cells by attack, None if missing."""

    network: Mapping[str, Any]
    cells: Mapping[int, Finished | None]


class Survey:
    """The manifest, and the records that it lists or that a killed run left behind.

    The manifest remembers each network's weights by what the network is made of, and each records
    file's SHA-256, so that finished cells need neither networks nor parsing. Where it is silent or
    another hash is found, records are read and checked value by value.

    subjects: for each of the plan's what is known of it, None where its network must be made first.
    """

    def __init__(self, keys: Keys, directory: RunDirectory, cache: Path | None) -> None:
        try:
            self.manifest = read_manifest(directory.path)
        except RunDirectoryError:  # there is none, or the directory will be refused when entered
            self.manifest = {}
        plan = keys.plan
        self._records = directory.path / "records"
        self._saving = plan.suite.save_adversarials
        self._hashes = _by(self.manifest.get("cells"), "key")
        self._names = {name[-24:-8]: name for name in _listed(self._records, ".parquet")}
        self.errors = set(_listed(self._records, ".error.txt"))
        networks = _by(self.manifest.get("networks"), "order")
        self.orders = [_order(keys, subject) for subject in plan.subjects]
        known: dict[int, str] = {}  # subject -> the hash of its weights
        for number, order in enumerate(self.orders):
            weights = networks.get(order, {}).get("weights_hash")
            if isinstance(weights, str) and cached_weights(order, cache) in (None, weights):
                known[number] = weights
        self.subjects: list[Holding | None] = []
        for number, order in enumerate(self.orders):
            if number not in known:
                self.subjects.append(None)
                continue
            named = keys.cells(number, known)
            cells = {
                attack: self.look(named[attack]) if attack in named else None
                for attack in plan.attacks_on(number)
            }
            self.subjects.append(Holding(networks[order], cells))
        self.unfinished = {
            subject.model.title
            for subject, holding in zip(plan.subjects, self.subjects, strict=True)
            if holding is None or None in holding.cells.values()
        }

    def precisions(self, weights: str) -> list[Mapping[str, Any]]:
        """What the searches on networks of these weights computed in, as the manifest says it."""
        networks = _by(self.manifest.get("networks"), "order").values()
        found = [one.get("precision") for one in networks if one.get("weights_hash") == weights]
        return [one for one in found if isinstance(one, Mapping)]

    def path(self, key: str) -> Path | None:
        """Where a cell's records are, whatever its titles were when they were written."""
        name = self._names.get(key[:16])
        return None if name is None else self._records / name

    def look(self, key: str, path: Path | None = None) -> Finished | None:
        """Return a cell that is there and whole; what is damaged is as good as missing."""
        path = path or self.path(key)
        if path is None or (self._saving and not path.with_suffix(".safetensors").is_file()):
            return None
        try:
            check_regular(path)
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found == self._hashes.get(key, {}).get("sha256"):
                return Finished(path, key, found)
            cell = read_cell(path)
        except (OSError, RunDirectoryError):
            return None
        return Finished(path, key, found, cell=cell) if cell.about.get("key") == key else None


def _order(keys: Keys, subject: Subject) -> str:
    try:
        return keys.network(subject)
    except (Exception, SystemExit):  # no checkpoint, a user's factory: said when it is tried
        return ""


def _by(entries: Any, name: str) -> dict[str, Any]:
    """The entries of a list in a manifest that have a certain name, by its value."""
    listed = entries if isinstance(entries, list) else []
    return {str(one[name]): one for one in listed if isinstance(one, Mapping) and name in one}


def _listed(folder: Path, ending: str) -> list[str]:
    try:
        return [one.name for one in folder.iterdir() if one.name.endswith(ending)]
    except OSError:
        return []
