"""What a run has come to so far: its manifest, and in the end its tables."""

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..report.write import Tables, write_tables
from ..store.atomic import remove
from ..store.environment import hardware, software
from ..store.privacy import path_from, private, private_values
from ..store.records import Finished
from ..store.run_directory import RunDirectory, lost_cell
from ..victim.probe import same_answers
from .keys import Keys
from .lookup import names_files
from .plan import Place
from .resume import CompletedCells, stale

_MISSING = {"status": "missing"}
_REST = 10.0  # so many times as long as writing the manifest took, it is left alone


class RunManifest:
    """Networks, finished cells and failed ones (place -> reason), in the order of the plan.

    A cell that the manifest does not list yet is not lost when the run is killed: its records say
    what it is. So the manifest, which grows with the run, need not be written after every cell.
    """

    def __init__(
        self, keys: Keys, completed: CompletedCells, directory: RunDirectory, file: str
    ) -> None:
        self.directory = directory
        self.done = dict(completed.done)
        self.failed: dict[Place, str] = {}
        self.networks: dict[int, Mapping[str, Any]] = {
            number: about for number, about in enumerate(completed.networks) if about is not None
        }
        self._plan = keys.plan
        self._keys = keys
        self._recipes = [one.recipe() for one in keys.plan.tasks]
        self._completed = completed
        self._file = file
        self._tables: Mapping[str, Any] = completed.manifest.get("tables") or {}
        self._began = _now()
        self._resting_until = 0.0
        self.executor = "in-process"

    def network(self, number: int, about: Mapping[str, Any]) -> set[Place]:
        """Note a defended model's network as it is now; drop the cells that another one gave.

        It is another one if its weights are others, or if it answers fixed images otherwise.
        Returns what was dropped.
        """
        before = self.networks.get(number, about).get("probe", ())
        self.networks[number] = about
        own = {at: self.done[at] for at in self._plan.depending[number] if at in self.done}
        changed = stale(self._plan, own, {number: about["weights_hash"]})
        for place, cell in own.items():
            probed = before if cell.probe is None or place[0] != number else cell.probe
            if not same_answers(probed, about["probe"]):
                changed.add(place)
        for place in changed:
            del self.done[place]
        return changed

    def add(self, place: Place, cell: Finished) -> None:
        """Note a finished cell."""
        self.done[place] = cell
        error = cell.path.with_suffix(".error.txt")
        if error.name in self._completed.errors:
            remove(error)

    def fail(self, place: Place, reason: str) -> None:
        """Note a cell that failed."""
        self.done.pop(place, None)
        self.failed[place] = private(reason, self._plan.folder)

    def titles(self, place: Place) -> dict[str, Any]:
        """What a cell is called, and may be called otherwise without a number changing."""
        task = self._plan.tasks[place[1]]
        source, targets = task.source, task.settings.targets
        borrowed = (
            {} if source is None else {"transfer_source": self._plan.defended_models[source].title}
        )
        aim = {} if targets is None else {"targets": targets}
        return {
            "dataset": self._plan.suite.dataset.title,
            **self._defended(place[0]),
            "attack": task.title,
            "leaderboard_epsilon": self._plan.suite.headline.text,
            "epsilons": [one.text for one in self._plan.suite.epsilons],
            "recipe": self._recipes[place[1]],
            "examples": self._plan.test_hash[:12],
            **borrowed,
            **aim,
        }

    def close(self) -> Tables | None:
        """Bring the tables up to date, and say that the run is finished."""
        cells = [(one, self.titles(place)) for place, one in sorted(self.done.items())]
        missing = [place for place in self._plan.places if place not in self.done]
        entries = [self._entry(place, ()) for place in missing]
        lost = [one for one in map(lost_cell, entries) if one is not None]
        self._tables, tables = write_tables(self.directory, self._tables, cells, lost)
        lasting, before = self._lasting(), self._completed.manifest
        idle = not self.failed and not any(one.fresh for one in self.done.values())
        if not (idle and before.get("finished") and lasting.items() <= before.items()):
            self._write(lasting, finished=_now())
        return tables

    def write(self) -> None:
        """Write the manifest of a run that goes on."""
        began = time.monotonic()
        self._write(self._lasting(), finished=None)
        now = time.monotonic()
        self._resting_until = now + _REST * (now - began)

    def write_now_and_then(self) -> None:
        """Write the manifest, unless that would take much of the run's time."""
        if time.monotonic() >= self._resting_until:
            self.write()

    def _write(self, lasting: Mapping[str, Any], finished: str | None) -> None:
        about = hardware(self._keys.device)
        passing = {"began": self._began, "finished": finished, "hardware": about}
        passing["executor"] = self.executor
        self.directory.write_manifest({**passing, **lasting})

    def _lasting(self) -> dict[str, Any]:
        """What the manifest says that a run with nothing to do would say again."""
        suite = self._plan.suite
        hardware = _different(self.done[place].computed_on for place in sorted(self.done))
        return {
            "suite": private_values(suite.resolved()),
            "suite_file": Path(self._file).name,
            "repeat": self._repeat(),
            "software": software(),
            "data_hash": self._keys.data,
            "indices": self._plan.indices.tolist(),
            "classes": list(self._plan.test.class_names),
            "networks": [
                {**about, **self._defended(number)}
                for number, about in sorted(self.networks.items())
            ],
            **({"computed_on": hardware} if hardware else {}),
            "cells": [self._entry(place, hardware) for place in self._plan.places],
            "tables": dict(self._tables),
        }

    def _entry(self, place: Place, hardware: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the manifest says of a cell. hardware: all that cells were computed on."""
        titles = self.titles(place)
        names = {name: titles[name] for name in ("dataset", "model", "defense", "attack")}
        entry = {**names, "norm": self._plan.suite.norm}
        if place not in self.done:
            shown = ("targets", "leaderboard_epsilon", "recipe", "examples")
            entry |= {name: titles[name] for name in shown if name in titles}
            failed = place in self.failed
            why = {"status": "failed", "error": self.failed[place]} if failed else _MISSING
            return {**entry, **why}
        cell = self.done[place]
        on = cell.computed_on
        return {
            **entry,
            "status": "done",
            "file": f"{cell.path.parent.name}/{cell.path.name}",
            "key": cell.key,
            "sha256": cell.sha256,
            "weights": list(cell.weights),
            "files": dict(cell.files),
            "adversarials": cell.adversarials,
            "seconds": cell.seconds,
            **({} if on is None else {"computed_on": hardware.index(on)}),
            "titles": titles,
        }

    def _defended(self, number: int) -> dict[str, str]:
        defended = self._plan.defended_models[number]
        return {"model": defended.model.title, "defense": defended.defense_title}

    def _repeat(self) -> str:
        """Say the command that gives the same numbers, to be run in the run directory.

        A suite that is far away, in somebody's home folder, is named alone.
        """
        suite = self._plan.suite
        source = "suite.toml"  # the copy, unless it names files that lie beside the original
        if names_files(suite):
            source = path_from(self.directory.path, self._plan.folder / Path(self._file).name)
        command = ["quintain", "run", source, "--seed", str(suite.seed)]
        if suite.training_seed is not None:
            command += ["--training-seed", str(suite.training_seed)]
        return shlex.join([*command, "--device", str(self._keys.device), "--out", "NEW_DIRECTORY"])


def _different(found: Iterable[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    """The different ones, in the order that they come."""
    kept: list[Mapping[str, Any]] = []
    for one in found:
        if one is not None and one not in kept:
            kept.append(one)
    return kept


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
