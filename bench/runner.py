"""The runner: trains what is missing, runs every cell of a suite, and writes the tables."""

import shlex
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import registry
from .checkpoints import weights_hash
from .datasets.memory import fingerprint
from .directory import RunDirectory, opened
from .errors import QuintainError, RunDirectoryError
from .evaluation import Case, Result, assess
from .files import check_writable, write_text
from .gallery import Spool
from .manifest import hardware, software
from .plan import Plan, Subject, make_plan, open_checkpoint
from .preparation import Attackers
from .progress import Bar, Lines
from .protocols import Trained, configuration
from .records import read_cell, write_cell
from .settings import Member, Settings
from .suite import AttackEntry, Suite
from .tables import Cell, leaderboard, tradeoff
from .training import Order, digest, obtain, train_proxy

RECORDS_VERSION = 1


@dataclass
class Outcome:
    """What a run came to. reused: cells that were there already."""

    cells: list[Cell] = field(default_factory=list)
    failed: list[tuple[str, ...]] = field(default_factory=list)
    reused: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    networks: list[dict[str, Any]] = field(default_factory=list)


def run_suite(
    suite: Suite,
    text: str,
    file: str,
    folder: Path,
    out: Path,
    device: torch.device,
    cache: Path | None,
    *,
    update: bool = False,
) -> Outcome:
    """Run a suite into a directory; cells that are there already are not run again.

    Raises: QuintainError before any work when the suite, the data, the checkpoints or the directory
    cannot be used. A cell that fails later is reported as failed, and the rest go on.
    """
    plan = make_plan(suite, file, folder)
    if cache is not None:
        _check_cache(cache)
    with opened(out, suite.resolved(), text, update=update) as directory:
        return Runner(plan, directory, device, cache, file).run()


def _check_cache(cache: Path) -> None:
    try:
        check_writable(cache / "networks" / "probe")
    except OSError as error:
        raise RunDirectoryError(
            f"the cache folder {cache} cannot be written ({error.strerror or error}); "
            "set QUINTAIN_CACHE to another one"
        ) from None


class Runner:
    """One run of a plan."""

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        device: torch.device,
        cache: Path | None,
        file: str,
    ) -> None:
        self.plan = plan
        self.directory = directory
        self.device = device
        self.cache = cache
        self.file = file
        self.lines = Lines()
        self.outcome = Outcome()
        self.data_hash = fingerprint(plan.test) + fingerprint(plan.train)
        self.began = datetime.now(UTC).isoformat(timespec="seconds")

    def run(self) -> Outcome:
        """Run every subject, then write the tables."""
        self._write_manifest(finished=None)
        for subject in self.plan.subjects:
            try:
                trained = self._network(subject)
            except (Exception, SystemExit) as error:
                self.lines.say(f"{subject.title}: FAILED: {one_line(error)}")
                for attack, _ in self.plan.attacks:
                    self._fail(subject, attack, error)
                continue
            self._run_subject(subject, trained)
        outcome = self.outcome
        if outcome.cells:
            self.directory.write_table("tradeoff.csv", tradeoff(outcome.cells, outcome.failed))
            self.directory.write_table(
                "leaderboard.csv", leaderboard(outcome.cells, outcome.failed)
            )
        else:  # older tables would belie the manifest
            for name in ("tradeoff.csv", "leaderboard.csv"):
                (self.directory.path / name).unlink(missing_ok=True)
        self._write_manifest(finished=datetime.now(UTC).isoformat(timespec="seconds"))
        return outcome

    def _network(self, subject: Subject) -> Trained:
        path = self.plan.checkpoint(subject.model)
        if subject.defense is None:
            assert path is not None
            network = open_checkpoint(path, subject.model.spec, self.plan.train)
            return Trained(network.to(self.device))
        suite = self.plan.suite
        order = Order(
            subject.model.spec,
            subject.defense,
            self.plan.train,
            suite.seed,
            self.device,
            suite.norm,
            suite.headline.value,
        )
        began = time.monotonic()
        trained = obtain(order, self.cache, Bar(f"train {subject.title}"))
        seconds = time.monotonic() - began
        if seconds > 1.0:
            self.lines.say(f"{subject.title}: trained")
        return trained

    def _run_subject(self, subject: Subject, trained: Trained) -> None:
        name = weights_hash(trained.model)
        self.outcome.networks.append(
            {
                "model": subject.model.title,
                "defense": subject.defense_title,
                "weights_hash": name,
                "parameters": parameter_count(trained.model),
                "flags": list(trained.flags),
                "history": [dict(one) for one in trained.history],
            }
        )
        for attack, member in self.plan.attacks:
            key = self._key(subject, name, attack, member)
            path = self.directory.records(
                subject.model.title, subject.defense_title, attack.title, key=key
            )
            try:
                cell = self._reuse(path)
                fresh = cell is None
                if cell is None:
                    with self._spool(path) as spool:
                        cell = self._compute(
                            subject, trained, name, attack, member, key, path, spool
                        )
            except (Exception, SystemExit) as error:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path.with_suffix(".error.txt"), traceback.format_exc())
                self._fail(subject, attack, error)
                self.lines.say(f"{subject.title} x {attack.title}: FAILED: {one_line(error)}")
                continue
            path.with_suffix(".error.txt").unlink(missing_ok=True)
            self._book(subject, attack, cell, path)
            if fresh:
                self._write_manifest(finished=None)

    def _reuse(self, path: Path) -> Cell | None:
        """Return the cell that is there already; a damaged file is computed anew."""
        saved = path.with_suffix(".safetensors").is_file()
        if not path.is_file() or (self.plan.suite.save_adversarials and not saved):
            return None
        try:
            cell = read_cell(path)
        except RunDirectoryError:
            return None
        self.outcome.reused += 1
        return cell

    def _spool(self, path: Path) -> AbstractContextManager[Spool | None]:
        """Where adversarial examples go until they are saved beside the records."""
        if not self.plan.suite.save_adversarials:
            return nullcontext()
        return Spool.opened(path.parent, self.plan.test.shape)

    def _compute(
        self,
        subject: Subject,
        trained: Trained,
        weights: str,
        attack: AttackEntry,
        member: Member,
        key: str,
        path: Path,
        spool: Spool | None,
    ) -> Cell:
        """Attack, and write what came of it. The records come last: they say that all is there."""
        suite = self.plan.suite
        settings = self._settings(attack)
        title = f"{subject.title} x {attack.title}"
        began = time.monotonic()
        result = assess(
            Case(
                module=trained.model,
                device=self.device,
                images=self.plan.test.images,
                labels=self.plan.test.labels,
                indices=self.plan.indices,
                attackers=Attackers(
                    self.plan.train,
                    partial(
                        train_proxy, suite.seed, self.device, self.cache, Bar(f"proxy {title}")
                    ),
                ),
            ),
            [member],
            settings,
            Bar(title),
            suite.batch_size,
            spool,
        )
        seconds = time.monotonic() - began
        about = {
            "n_examples": len(self.plan.test),
            "access": member.attack.access,
            "norm": suite.norm,
            "epsilons": [one.text for one in suite.epsilons],
            "epsilon_values": [one.value for one in suite.epsilons],
            "seed": suite.seed,
            "search": settings.search,
            "query_budget": settings.query_budget,
            "seconds": round(seconds, 3),
            "device": str(self.device),
            "dtype": "float32",
            "flags": [*trained.flags, *result.flags],
            "report": dict(result.report),
            "parameters": parameter_count(trained.model),
            "configuration": configuration(member.attack),
            "restarts": member.restarts,
            "software": software(),
            "key": key,
            "weights_hash": weights,
            **self._titles(subject, attack),
        }
        cell = Cell(about, result.records)
        if spool is not None:
            spool.save(path.with_suffix(".safetensors"))
        write_cell(path, cell)
        self._say(title, result, seconds)
        return cell

    def _settings(self, attack: AttackEntry) -> Settings:
        suite = self.plan.suite
        return Settings(
            norm=suite.norm,
            grid=suite.epsilons,
            seed=suite.seed,
            search=attack.search or suite.search,
            query_budget=attack.query_budget or suite.query_budget,
        )

    def _key(self, subject: Subject, weights: str, attack: AttackEntry, member: Member) -> str:
        """Name a cell by everything that can change its numbers."""
        settings = self._settings(attack)
        return digest(
            {
                "records": RECORDS_VERSION,
                "weights": weights,
                "model": subject.model.spec,
                "model_source": registry.find("models", subject.model.name).digest,
                "data": self.data_hash,
                "indices": self.plan.indices.tolist(),
                "defense": configuration(subject.defense),
                "local_sources": registry.local_sources(attack.spec),
                "attack": attack.spec,
                "attack_source": registry.find("attacks", attack.name).digest,
                "configuration": configuration(member.attack),
                "restarts": member.restarts,
                "settings": configuration(settings),
                "device": self.device.type,
                "dtype": "float32",
                "software": software(),
            }
        )

    def _titles(self, subject: Subject, attack: AttackEntry) -> dict[str, Any]:
        """What may be called otherwise without a number changing."""
        return {
            "dataset": self.plan.suite.dataset.title,
            "model": subject.model.title,
            "defense": subject.defense_title,
            "attack": attack.title,
            "leaderboard_epsilon": self.plan.suite.headline.text,
        }

    def _book(self, subject: Subject, attack: AttackEntry, cell: Cell, path: Path) -> None:
        titles = self._titles(subject, attack)
        self.outcome.cells.append(Cell(cell.about | titles, cell.records))
        file = str(path.relative_to(self.directory.path))
        key = cell.about["key"]
        self._log(subject, attack, status="done", file=file, key=key, titles=titles)

    def _fail(self, subject: Subject, attack: AttackEntry, error: BaseException) -> None:
        titles = self._titles(subject, attack)
        names = ("dataset", "model", "defense", "attack")
        dataset, model, defense, name = (titles[one] for one in names)
        self.outcome.failed.append((dataset, self.plan.suite.norm, model, defense, name))
        self._log(subject, attack, status="failed", error=one_line(error))

    def _log(self, subject: Subject, attack: AttackEntry, **more: Any) -> None:
        titles = self._titles(subject, attack)
        names = {name: titles[name] for name in ("dataset", "model", "defense", "attack")}
        self.outcome.log.append(names | {"norm": self.plan.suite.norm} | more)

    def _say(self, title: str, result: Result, seconds: float) -> None:
        headline = self.plan.suite.headline.text
        curve = result.curve.set_index("epsilon").loc[headline]
        self.lines.say(
            f"{title}: robust accuracy {curve['robust_accuracy']:.3f} at {headline} "
            f"({seconds:.1f} s)" + "".join(f" [{flag}]" for flag in result.flags)
        )

    def _repeat(self) -> str:
        """Say the command that gives the same numbers, to be run in the run directory."""
        suite = self.plan.suite
        source = Path("suite.toml")  # the copy, unless it names files that lie beside the original
        if suite.plugins or any(one.checkpoint for one in suite.models):
            source = self.plan.folder / Path(self.file).name
        command = ["quintain", "run", str(source), "--seed", str(suite.seed)]
        return shlex.join([*command, "--device", str(self.device), "--out", "NEW_DIRECTORY"])

    def _write_manifest(self, finished: str | None) -> None:
        suite = self.plan.suite
        self.directory.write_manifest(
            {
                "suite": suite.resolved(),
                "suite_file": self.file,
                "repeat": self._repeat(),
                "began": self.began,
                "finished": finished,
                "software": software(),
                "hardware": hardware(self.device),
                "data_hash": self.data_hash,
                "indices": self.plan.indices.tolist(),
                "networks": self.outcome.networks,
                "cells": self.outcome.log,
            }
        )


def parameter_count(module: nn.Module) -> int:
    """How many weights a network has."""
    return sum(one.numel() for one in module.parameters())


def one_line(error: BaseException) -> str:
    """Say an error in one line; name its type unless it is one of ours."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, QuintainError) else f"{type(error).__name__}: {text}"
