"""A suite made ready: every plugin built, and every model tried that there is work for."""

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..api import registry
from ..api.data import ImageData, Images
from ..api.defense import Defense
from ..api.epsilon import check_radii
from ..api.errors import BadParameter, BadSuite
from ..api.shared.path_names import located
from ..datasets.in_memory import drawn_rows, fingerprint, select, tensor_hash
from ..datasets.validation import SPLITS, check_images, check_splits, load_split
from ..engine.config import AttackStage, check_stages
from ..engine.targets import check_class
from ..store.hashing import hash_json
from ..training.load import check_model, wrapper_of
from ..training.networks import check_defense
from ..victim.traits import ModelTraits
from .config import AttackEntry, Entry, ModelEntry, Suite
from .lookup import blamed
from .matrix import DefendedModel, attack_tasks, certificate_tasks, transfer_tasks
from .tasks import Task

Place = tuple[int, int]  # a cell: the numbers of its defended model, and of its task


@dataclass(frozen=True)
class Shard:
    """Some examples of a cell: from row `start` up to `stop` of those that are chosen."""

    place: Place
    start: int
    stop: int


_BLOCK = 256  # images held at once to be looked at


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    train: the training split. test: the chosen test examples. indices: (N,) int64, which of
    the test split they are. train_hash, test_hash: their fingerprint, and that of the very pixels
    that are attacked. tasks: attacks and what else a cell may be, such as certificates.
    """

    suite: Suite
    folder: Path
    train: ImageData
    test: ImageData
    indices: Tensor
    train_hash: str
    test_hash: str
    defended_models: tuple[DefendedModel, ...]
    tasks: tuple[Task, ...]

    def tasks_on(self, number: int) -> list[int]:
        """The tasks that meet a defended model, in their order."""
        return [task for task, one in enumerate(self.tasks) if number in one.meets]

    @cached_property
    def places(self) -> list[Place]:
        """Every cell, a defended model after the other."""
        numbers = range(len(self.defended_models))
        return [(number, task) for number in numbers for task in self.tasks_on(number)]

    @cached_property
    def depending(self) -> dict[int, list[Place]]:
        """Of each defended model the cells that depend on its network."""
        found: dict[int, list[Place]] = {number: [] for number in range(len(self.defended_models))}
        for place in self.places:
            for number in self.networks(place):
                found[number].append(place)
        return found

    @cached_property
    def kinds(self) -> dict[str, list[int]]:
        """The tasks of each kind."""
        found: dict[str, list[int]] = {}
        for task, one in enumerate(self.tasks):
            found.setdefault(one.kind, []).append(task)
        return found

    def networks(self, place: Place) -> tuple[int, ...]:
        """The defended models whose networks a cell takes: its own, and one that it borrows."""
        source = self.tasks[place[1]].source
        return (place[0],) if source is None else (place[0], source)

    def checkpoint(self, entry: ModelEntry) -> Path | None:
        """Where a model's checkpoint is: relative to the suite's folder."""
        return None if entry.checkpoint is None else located(entry.checkpoint, self.folder)


def make_plan(suite: Suite, file: str, folder: Path) -> Plan:
    """Load plugins and data, build every plugin, and refuse what cannot work.

    The models are only looked up: `check_models` builds those that there is work for.

    Raises: BadSuite, naming the file and the key; BadData; BadCheckpoint; UnknownPlugin; BadPlugin.
    """
    for one in suite.plugins:
        with blamed(file, "plugins"):
            registry.load_named(one, folder)
    attacks: list[tuple[AttackEntry, AttackStage]] = []
    for number, attack in enumerate(suite.attacks, 1):
        with blamed(file, f"attacks[{number}]"):
            plugin = registry.build("attacks", attack.spec, besides=AttackEntry.model_fields)
            stage = AttackStage(plugin, attack.restarts)
            check_stages([stage], suite.norm, targeted=False)
            attacks.append((attack, stage))
    defenses: list[tuple[Entry, Defense]] = []
    for number, defense in enumerate(suite.defenses, 1):
        with blamed(file, f"defenses[{number}]"):
            built = registry.build("defenses", defense.spec, besides=Entry.model_fields)
            defenses.append((defense, built))
    with blamed(file, "dataset"):
        dataset = registry.build("datasets", suite.dataset.spec)
        train, test = (load_split(dataset, suite.dataset.name, one) for one in SPLITS)
        check_splits(train, test)
        indices = drawn_rows(len(test), suite.n_examples or len(test), suite.seed)
        test = select(test, indices)
        pixels = _checked_pixels(test.images)
    with blamed(file, "epsilons"):
        _check_grid(suite, test)
    defended_models = _defended_models(suite, file, folder, defenses)
    _check_apart(defended_models, file)
    if any(one.defense is not None for one in defended_models):
        for number, (_, built) in enumerate(defenses, 1):
            with blamed(file, f"defenses[{number}]"):
                check_defense(built, train, suite.norm, suite.headline.value, suite.seed)
    with blamed(file, "targets"):
        check_class(suite.targets, test.n_classes)
        tasks = attack_tasks(attacks, suite, defended_models)
    if suite.transfer is not None:
        with blamed(file, "transfer"):
            tasks += transfer_tasks(suite.transfer, suite, defended_models)
    tasks += certificate_tasks(suite, defended_models)
    return Plan(
        suite,
        folder,
        train,
        test,
        indices,
        fingerprint(train),
        hash_json([pixels, tensor_hash(test.labels), test.class_names]),
        tuple(defended_models),
        tuple(tasks),
    )


def _checked_pixels(images: Images) -> str:
    """Look at every image that is to be attacked, and name all their pixels.

    Raises: BadData.
    """
    digest = hashlib.sha256()
    for part in torch.arange(len(images)).split(_BLOCK):
        pixels = images.read(part).cpu()
        check_images(pixels, first=int(part[0]))
        digest.update(tensor_hash(pixels).encode())
    return digest.hexdigest()


def _check_grid(suite: Suite, test: ImageData) -> None:
    """Refuse epsilons beyond images of this shape. Raises: BadParameter."""
    try:
        check_radii(suite.epsilons, suite.norm, test.shape)
    except ValueError as error:
        raise BadParameter(str(error)) from None


def _defended_models(
    suite: Suite, file: str, folder: Path, defenses: Sequence[tuple[Entry, Defense]]
) -> list[DefendedModel]:
    """Every model with every defense; once alone when it has its weights already.

    Raises: BadSuite.
    """
    defended_models: list[DefendedModel] = []
    for number, model in enumerate(suite.models, 1):
        with blamed(file, f"models[{number}]"):
            registry.bind("models", model.spec, besides=ModelEntry.model_fields)
            factory = registry.find("models", model.name).load()
            if _is_ready(model):
                path = None if model.checkpoint is None else located(model.checkpoint, folder)
                wrapper = None if path is None or not path.is_file() else wrapper_of(path)
                traits = ModelTraits.of(factory, wrapper)
                defended_models.append(DefendedModel(model, model.defense, None, wrapper, traits))
                continue
        if not defenses:
            raise BadSuite(f"{file}: defenses must hold at least one, such as 'none'")
        defended_models += [
            DefendedModel(model, one.title, plugin, None, ModelTraits.of(factory, plugin))
            for one, plugin in defenses
        ]
    return defended_models


def _check_apart(defended_models: Sequence[DefendedModel], file: str) -> None:
    """Refuse two defended models that tables would call the same: `a x b` and `c`, `a` and `b x c`.

    Raises: BadSuite.
    """
    seen: set[str] = set()
    for one in defended_models:
        if one.title in seen:
            raise BadSuite(
                f"{file}: two pairs of model and defense are called '{one.title}': "
                "give a model or a defense another label"
            )
        seen.add(one.title)


def _is_ready(model: ModelEntry) -> bool:
    """Whether a model has its weights already, and is not to be trained."""
    if model.checkpoint is not None:
        if model.train:
            raise BadParameter("train = true, but the weights are in a checkpoint")
        return True
    return not model.train if model.train is not None else registry.brings_weights(model.spec)


def check_models(plan: Plan, file: str, titles: Container[str]) -> None:
    """Build the models of these titles and run each on two images; read their checkpoints.

    Raises: BadSuite, naming the file and the key.
    """
    for number, model in enumerate(plan.suite.models, 1):
        if model.title in titles:
            with blamed(file, f"models[{number}]"):
                check_model(model.spec, plan.train, plan.checkpoint(model))
