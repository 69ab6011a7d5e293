"""Which cells of a plan a run directory holds already. Nothing is written, no network is made."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..api.errors import RunDirectoryError
from ..api.shared.file_checks import check_regular
from ..store.hashing import hash_file
from ..store.records import Finished, read_cell
from ..store.run_directory import RunDirectory, read_manifest
from ..training.networks import cached_weights
from .files_read import unchanged
from .keys import Keys
from .plan import Place, Plan


class CompletedCells:
    """The records that the manifest lists, and those that a killed run left behind.

    The manifest remembers each file's SHA-256, so that finished cells need not be parsed. Where it
    is silent or another hash is found, records are read and checked value by value.

    done: the finished cells, without those that other weights gave than a network is known to have
    now. networks: what the manifest says of each defended model's network, if it does. weights: the
    hash of the weights that a defended model's network has, where that is known.
    to_check: the defended models whose network must be made, to see whether it is still the same,
    before their cells count as done: those of unknown weights, and those made by code of the
    user's, unless they would be trained.
    """

    def __init__(self, keys: Keys, directory: RunDirectory, cache: Path | None) -> None:
        try:
            self.manifest = read_manifest(directory.path)
        except RunDirectoryError:  # there is none, or the directory will be refused when entered
            self.manifest = {}
        plan = keys.plan
        self._folder = plan.folder
        self._records = directory.path / "records"
        self._saving = plan.suite.save_adversarials
        self._listed = _by(self.manifest.get("cells"), "key")
        self._names = {name[-24:-8]: name for name in _files(self._records, ".parquet")}
        self.errors = set(_files(self._records, ".error.txt"))
        self.done: dict[Place, Finished] = {}
        for place in plan.places:
            if (found := self._look_up(keys.cell(place))) is not None:
                self.done[place] = found
        listed = _by(self.manifest.get("networks"), "key")
        self.networks = [listed.get(key) for key in keys.networks]
        cached = [cached_weights(key, cache) for key in keys.networks]
        agreed = self._agreed_weights()
        self.weights = {
            number: known
            for number, one in enumerate(cached)
            if (known := one or agreed.get(number)) is not None
        }
        changed = stale(plan, self.done, self.weights)
        self.done = {place: one for place, one in self.done.items() if place not in changed}
        there = {number for number, _ in self.done}
        self.to_check = {
            number
            for number, defended in enumerate(plan.defended_models)
            if number in there
            and (
                number not in self.weights
                or (defended.is_users and (defended.defense is None or cached[number] is not None))
            )
        }

    def _agreed_weights(self) -> dict[int, str]:
        """By defended model, the weights that all its finished cells agree upon."""
        found: dict[int, set[str]] = {}
        for (number, _), cell in self.done.items():
            found.setdefault(number, set()).add(cell.weights[0])
        return {number: next(iter(one)) for number, one in found.items() if len(one) == 1}

    def unfinished(self, plan: Plan) -> set[str]:
        """Titles of the models that have a cell missing."""
        return {
            plan.defended_models[place[0]].model.title
            for place in plan.places
            if place not in self.done
        }

    def _hardware(self, number: Any) -> Mapping[str, Any] | None:
        """What a manifest's entry says that its cell was computed on."""
        known = self.manifest.get("computed_on")
        if isinstance(number, int) and isinstance(known, list) and 0 <= number < len(known):
            return known[number] if isinstance(known[number], Mapping) else None
        return None

    @cached_property
    def precisions(self) -> Mapping[str, Mapping[str, Any]]:
        """What searches computed in before, as the manifest says it: a run keeps to it.

        The hash of a network's weights -> a description of the choice.
        """
        networks = _by(self.manifest.get("networks"), "key").values()
        return {
            str(one.get("weights_hash")): one["precision"]
            for one in networks
            if isinstance(one.get("precision"), Mapping)
        }

    def path(self, key: str) -> Path | None:
        """Where a cell's records are, whatever its titles were when they were written."""
        name = self._names.get(key[:16])
        return None if name is None else self._records / name

    def _look_up(self, key: str) -> Finished | None:
        """Return a cell that is there and whole; what is damaged is as good as missing."""
        path = self.path(key)
        if path is None:
            return None
        listed = self._listed.get(key, {})
        try:
            check_regular(path)
            sha256 = hash_file(path)
            if sha256 == listed.get("sha256"):
                found = Finished(
                    path,
                    key,
                    sha256,
                    tuple(listed["weights"]),
                    listed["files"],
                    listed.get("adversarials"),
                    listed.get("seconds"),
                    computed_on=self._hardware(listed.get("computed_on")),
                )
            else:
                found = _read(path, sha256)
        except (OSError, RunDirectoryError, KeyError, TypeError):
            return None
        same = found.key == key and unchanged(found.files, self._folder)
        return found if same and (not self._saving or found.saved) else None


def _read(path: Path, sha256: str) -> Finished:
    """A finished cell whose records are read and checked. Raises: RunDirectoryError; KeyError."""
    cell = read_cell(path, None)
    about = cell.about
    return Finished(
        path,
        about["key"],
        sha256,
        cell.weights,
        about["files"],
        about.get("adversarials"),
        about.get("seconds"),
        about.get("probe"),
    )


def stale(plan: Plan, cells: Mapping[Place, Finished], weights: Mapping[int, str]) -> set[Place]:
    """The cells that other weights gave than a network has now.

    weights: by defended model, where they are known.
    """
    return {
        place
        for place, cell in cells.items()
        for number, before in zip(plan.networks(place), cell.weights, strict=False)
        if weights.get(number, before) != before
    }


def _by(entries: Any, name: str) -> dict[str, Any]:
    """The entries of a list in a manifest that have a certain name, by its value."""
    listed = entries if isinstance(entries, list) else []
    return {str(one[name]): one for one in listed if isinstance(one, Mapping) and name in one}


def _files(folder: Path, ending: str) -> list[str]:
    try:
        return [one.name for one in folder.iterdir() if one.name.endswith(ending)]
    except OSError:
        return []
