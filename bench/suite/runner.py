"""The runner: trains what is missing, runs every cell of a suite, and writes the tables."""

import time
import traceback
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..api.defense import Certificates, Trained
from ..api.errors import CellError, QuintainError, RunDirectoryError
from ..api.flags import stored
from ..api.shared.file_checks import check_writable
from ..api.shared.path_names import relative_to
from ..api.shared.progress_bars import Bar, Lines
from ..api.shared.threads import threads_for
from ..engine.adversarials import DiskStore
from ..engine.case import Case, CellResult
from ..engine.cell import assess
from ..engine.certify import certify, remembered
from ..engine.config import AttackStage, CellConfig, Certification
from ..engine.diagnostics.model_checks import Checked
from ..engine.preparation import Attackers
from ..report.certificates import CERTIFICATE
from ..report.tables import curve_of
from ..report.write import Tables
from ..store.atomic import write_text
from ..store.cell import Cell
from ..store.checkpoints import weights_hash
from ..store.environment import software
from ..store.hashing import configuration, hash_file
from ..store.privacy import private
from ..store.records import Finished, write_cell
from ..store.run_directory import RunDirectory, opened
from ..training.load import open_ready
from ..training.networks import sweep, train_or_load, train_proxy
from ..victim.model import frozen
from ..victim.precision_selection import PrecisionChoice, recall
from ..victim.probe import probe
from .config import Suite
from .files_read import hashed, recorded
from .keys import Keys
from .manifest import RunManifest
from .matrix import CellTask, DefendedModel
from .plan import Plan, check_models, make_plan
from .resume import CompletedCells, Place, finished


@dataclass(frozen=True)
class Outcome:
    """How many cells are done, how many of them were there already, how many failed; the tables."""

    done: int
    reused: int
    failed: int
    tables: Tables | None


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
    with relative_to(folder):
        with recorded() as files:
            plan = make_plan(suite, file, folder)
        if cache is not None:
            _check_cache(cache)
            sweep(cache)
        keys = Keys(plan, device)
        completed = CompletedCells(keys, RunDirectory(out), cache)
        check_models(plan, file, completed.unfinished(plan))
        with opened(out, suite.resolved(), text, update=update) as directory:
            return Runner(
                RunManifest(keys, completed, directory, file), completed, keys, cache, files
            ).run()


def _check_cache(cache: Path) -> None:
    try:
        check_writable(cache / "networks" / "probe")
    except OSError as error:
        raise RunDirectoryError(
            f"the cache folder {cache} cannot be written ({error.strerror or error}); "
            "set QUINTAIN_CACHE to another one"
        ) from None


class Runner:
    """One run of a plan: a defended model after the other, where a cell of it is missing."""

    def __init__(
        self,
        manifest: RunManifest,
        completed: CompletedCells,
        keys: Keys,
        cache: Path | None,
        files: set[str],
    ) -> None:
        self.manifest = manifest
        self.completed = completed
        self.keys = keys
        self.plan: Plan = keys.plan
        self.device = keys.device
        self.cache = cache
        self._files = files  # that code of the user's has read when plugins were made,
        self._network_files: dict[int, set[str]] = defaultdict(set)  # a network was made,
        self._attack_files: dict[int, set[str]] = defaultdict(set)  # and an attack was run
        self.lines = Lines()
        self._about: dict[str, Any] = {}  # of the network at work, and what its search uses
        self._choice: PrecisionChoice | None = None
        self._checked: Checked = {}
        self._weights: dict[int, str] = {}  # of the networks seen in this run
        self._failures: dict[int, BaseException] = {}

    def run(self) -> Outcome:
        """Run what is missing, then bring the tables up to date."""
        if any(map(self.manifest.missing, range(len(self.plan.defended_models)))):
            self.manifest.write()
        while (number := self._next()) is not None:
            self._run_defended(number)
        tables = self.manifest.close()
        done = self.manifest.done.values()
        fresh = sum(one.fresh for one in done)
        return Outcome(len(done), len(done) - fresh, len(self.manifest.failed), tables)

    def _next(self) -> int | None:
        """The first defended model with a cell missing, or whose network must be checked again."""
        log, defended_models = self.manifest, range(len(self.plan.defended_models))
        for number in defended_models:
            if any((number, one) not in log.failed for one in log.missing(number)):
                return number
            unsure = number not in log.weights or number in self.completed.to_build
            if unsure and number not in {*self._weights, *self._failures} and log.has(number):
                return number
        return None

    def _run_defended(self, number: int) -> None:
        try:
            trained = self._network(number)
            weights = self._same_weights(number, trained.model)
            self._choice = self._recall(weights, trained.model)
            count = parameter_count(trained.model)
            answers = probe(trained.model, self.plan.test.shape, self.device)
        except (Exception, SystemExit) as error:
            for attack in self.plan.attacks_on(number):
                self.manifest.fail((number, attack), one_line(error))
            return
        self._checked = {}
        about = self._about = {
            "key": self.keys.networks[number],
            "weights_hash": weights,
            "probe": answers,
            "parameters": count,
            "flags": stored(trained.flags),
            "history": [dict(one) for one in trained.history],
            "threads": self._threads(trained.model),
            "precision": None if self._choice is None else self._choice.about(),
        }
        self.manifest.network(number, about)
        for attack in self.manifest.missing(number):
            if (number, attack) not in self.manifest.failed and self._learn_source(
                (number, attack)
            ):
                self._run_cell((number, attack), trained)

    def _threads(self, module: nn.Module) -> int:
        """With how many threads a network is trained and attacked."""
        with frozen(module):
            return threads_for(module, self.plan.test.images.read(torch.tensor([0])), self.device)

    def _learn_source(self, place: Place) -> bool:
        """Learn the weights of the network that an attack borrows; tell whether that went well."""
        source = self.plan.attacks[place[1]].source
        if source is None or source in self._weights:
            return True
        try:
            self._same_weights(source, self._network(source).model)
        except (Exception, SystemExit) as error:
            self.manifest.fail(place, one_line(error))
            return False
        return True

    def _same_weights(self, number: int, module: nn.Module) -> str:
        """The hash of a network's weights. Raises: CellError when it changes within the run."""
        found = weights_hash(module)
        if self._weights.setdefault(number, found) != found:
            raise CellError("the model has other weights each time it is built: fix its seed")
        return found

    def _recall(self, weights: str, module: nn.Module) -> PrecisionChoice | None:
        """What the search on this network used when a part of the run was made, so that the rest is
        like it; None when it is not known.
        """
        if self.plan.suite.precision != "auto":
            return None
        for about in self.completed.precisions(weights):
            sample = self.plan.test.images.read(torch.arange(min(16, len(self.plan.test))))
            with frozen(module):
                return recall(about, module, sample.to(self.device))
        return None

    def _run_cell(self, place: Place, trained: Trained) -> None:
        key = self.keys.cell(place)
        defended, attack = self.plan.defended_models[place[0]], self.plan.attacks[place[1]].entry
        path = self.completed.path(key) or self.manifest.directory.records(
            defended.model.title, defended.defense_title, attack.title, key=key
        )
        try:
            with self._store(path) as store:
                cell = self._compute(place, trained, key, path, store)
        except (Exception, SystemExit) as error:
            with suppress(OSError):  # the reason is in the manifest as well
                said = private(traceback.format_exc(), self.plan.folder)
                write_text(path.with_suffix(".error.txt"), said)
            self.manifest.fail(place, one_line(error))
            self.lines.say(f"{defended.title} x {attack.title}: FAILED: {one_line(error)}")
            return
        self.manifest.add(place, cell)
        self.manifest.write_now_and_then()

    def _network(self, number: int) -> Trained:
        """A defended model's network. One that failed is not tried again."""
        if number in self._failures:
            raise self._failures[number]
        try:
            with recorded() as files:
                fetched = self._fetched(self.plan.defended_models[number])
            self._network_files[number] |= files
            return fetched
        except (Exception, SystemExit) as error:
            self._failures[number] = error
            self.lines.say(f"{self.plan.defended_models[number].title}: FAILED: {one_line(error)}")
            raise

    def _fetched(self, defended: DefendedModel) -> Trained:
        path = self.plan.checkpoint(defended.model)
        if defended.defense is None:
            network = open_ready(path, defended.model.spec, self.plan.train)
            return Trained(network.to(self.device))
        began = time.monotonic()
        trained = train_or_load(
            self.keys.training_request(defended), self.cache, Bar(f"train {defended.title}")
        )
        seconds = time.monotonic() - began
        if seconds > 1.0:
            self.lines.say(f"{defended.title}: trained")
        return trained

    def _store(self, path: Path) -> AbstractContextManager[DiskStore | None]:
        """Where adversarial examples go until they are saved beside the records."""
        if not self.plan.suite.save_adversarials:
            return nullcontext()
        return DiskStore.opened(path.parent, self.plan.test.shape)

    def _compute(
        self,
        place: Place,
        trained: Trained,
        key: str,
        path: Path,
        store: DiskStore | None,
    ) -> Finished:
        """Attack, and write what came of it. The records come last: they say that all is there."""
        suite = self.plan.suite
        defended, task = self.plan.defended_models[place[0]], self.plan.attacks[place[1]]
        stage, settings = task.stage, self.plan.settings(task)
        title = f"{defended.title} x {task.entry.title}"
        began = time.monotonic()
        with recorded() as files:
            result = self._measure(place, trained, settings, title, store)
        self._attack_files[place[1]] |= files
        seconds = time.monotonic() - began
        about = {
            "n_examples": len(self.plan.test),
            "norm": suite.norm,
            "epsilon_values": [one.value for one in suite.epsilons],
            "seed": suite.seed,
            "search": settings.search,
            "query_budget": settings.query_budget,
            "seconds": round(seconds, 3),
            "device": str(self.device),
            "dtype": result.dtype,
            "model_dtype": result.model_dtype,
            "flags": [*trained.flags, *result.flags],
            "report": dict(result.report),
            "parameters": parameter_count(trained.model),
            "stages": list(result.stages),
            **_described(stage),
            "naive": task.naive,
            "software": software(),
            "key": key,
            "weights_hash": self._weights[place[0]],
            "probe": self._about["probe"],
            **self._source(task),
            "files": hashed(self._read_for(place), self.plan.folder),
            **self.manifest.titles(place),
        }
        if "rejection_margin" in result.records:
            about["false_positive_rate_target"] = getattr(
                trained.model, "false_positive_rate", None
            )
        if store is not None:
            store.save(path.with_suffix(".safetensors"))
            about["adversarials"] = hash_file(path.with_suffix(".safetensors"))
        cell = Cell(about, result.records)
        sha256 = write_cell(path, cell)
        self._say(title, result, seconds)
        return finished(path, sha256, cell, fresh=True)

    def _measure(
        self,
        place: Place,
        trained: Trained,
        settings: CellConfig,
        title: str,
        store: DiskStore | None,
    ) -> CellResult:
        """Have the network certify, or attack it."""
        plan, size = self.plan, self.plan.suite.batch_size
        case = Case(
            module=trained.model,
            device=self.device,
            images=plan.test.images,
            labels=plan.test.labels,
            indices=plan.indices,
            checked=self._checked,
        )
        stage = plan.attacks[place[1]].stage
        if isinstance(stage, Certification):
            return certify(case, settings, Bar(title), size)
        proxies = partial(
            train_proxy, plan.suite.seed, self.device, self.cache, Bar(f"proxy {title}")
        )
        attackers = Attackers(plan.train, proxies, **self._source_network(place))
        case = replace(case, attackers=attackers, certificates=self._certificates(place[0]))
        result = assess(case, [stage], settings, Bar(title), size, store, self._choice)
        if result.choice is not None and self._choice is None:
            self._choice = result.choice
            self._about["precision"] = result.choice.about()
        return result

    def _read_for(self, place: Place) -> set[str]:
        """The files that code of the user's has read for a cell."""
        networks = [place[0], self.plan.attacks[place[1]].source]
        read = (self._network_files[one] for one in networks if one is not None)
        return self._files.union(self._attack_files[place[1]], *read)

    def _source(self, task: CellTask) -> dict[str, str]:
        """What a record says of the network whose gradients its attack borrows."""
        source = task.source
        return {} if source is None else {"source_weights_hash": self._weights[source]}

    def _certificates(self, number: int) -> Certificates | None:
        """What a defended model's network has proved; None where there are no certificates."""
        proofs = self.plan.certification
        if proofs is None or (number, proofs) not in self.manifest.done:
            return None
        return remembered(self.manifest.done[number, proofs].read().records)

    def _source_network(self, place: Place) -> dict[str, Any]:
        """The network that an attack borrows, under its defended model's title."""
        source = self.plan.attacks[place[1]].source
        if source is None:
            return {}
        title = self.plan.defended_models[source].title
        return {"networks": lambda _: self._network(source).model, "known": (title,)}

    def _say(self, title: str, result: CellResult, seconds: float) -> None:
        headline = self.plan.suite.headline.text
        curve = curve_of(result.records, [one.text for one in result.grid])
        curve = curve.set_index("epsilon").loc[headline]
        kind = "certified" if "radius" in result.records else "robust"
        self.lines.say(
            f"{title}: {kind} accuracy {curve['robust_accuracy']:.3f} at {headline} "
            f"({seconds:.1f} s)" + "".join(f" [{flag}]" for flag in result.flags)
        )


def _described(stage: AttackStage | Certification) -> dict[str, Any]:
    """What a cell says of its attack, or of what stands in its place."""
    if isinstance(stage, Certification):
        return {"access": CERTIFICATE, "configuration": configuration(stage), "restarts": 1}
    attack = stage.attack
    described = {"configuration": configuration(attack), "restarts": stage.restarts}
    return {"access": attack.access, **described}


def parameter_count(module: nn.Module) -> int:
    """How many weights a network has."""
    return sum(one.numel() for one in module.parameters())


def one_line(error: BaseException) -> str:
    """Say an error in one line; name its type unless it is one of ours."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, QuintainError) else f"{type(error).__name__}: {text}"
