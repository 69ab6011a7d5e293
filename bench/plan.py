"""A suite made ready: every plugin built, and every model tried that there is work for."""

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from . import registry
from .adaptive import Nature
from .checkpoints import load_checkpoint, read_about
from .datasets.checks import check_images, check_labels
from .datasets.memory import channel_statistics, fingerprint, select, tensor_hash
from .errors import (
    BadCheckpoint,
    BadData,
    BadParameter,
    BadSuite,
    QuintainError,
    UnknownPlugin,
)
from .evaluation import check_members
from .hashing import hash_json
from .inert import short
from .lookup import blamed
from .modules import evaluation_mode
from .network import dtype_of
from .paths import located
from .protocols import Dataset, Defense, ImageData, Images, InputSpec
from .rejection import rejects
from .settings import Certification, Member, Settings
from .sorties import Sortie, Subject, certification_of, sorties_of, transfers_of
from .suite import AttackEntry, Entry, ModelEntry, Suite
from .targets import check_class
from .threat import check_radii
from .training import build_network, check_defense

Split = Literal["train", "test"]
_SHOWN = 2000  # characters of what somebody else's checkpoint makes us say
_BLOCK = 256  # images held at once to be looked at
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    train: the training split. test: the chosen test examples. indices: (N,) int64, which of
    the test split they are. train_hash, test_hash: their fingerprint, and that of the very pixels
    that are attacked. attacks: also what stands in an attack's place, the certificates.
    """

    suite: Suite
    folder: Path
    train: ImageData
    test: ImageData
    indices: Tensor
    train_hash: str
    test_hash: str
    subjects: tuple[Subject, ...]
    attacks: tuple[Sortie, ...]

    def attacks_on(self, number: int) -> list[int]:
        """The attacks that a subject is met by.

        Its certificates come first, if it has some: attacks are audited against them.
        """
        meets = [attack for attack, one in enumerate(self.attacks) if number in one.meets]
        return sorted(meets, key=lambda attack: attack != self.certification)

    @cached_property
    def certification(self) -> int | None:
        """The attack in whose place the certificates are, if any subject has some."""
        kinds = (isinstance(one.member, Certification) for one in self.attacks)
        return next((number for number, found in enumerate(kinds) if found), None)

    def checkpoint(self, entry: ModelEntry) -> Path | None:
        """Where a model's checkpoint is: relative to the suite's folder."""
        return None if entry.checkpoint is None else located(entry.checkpoint, self.folder)

    def settings(self, sortie: Sortie) -> Settings:
        """How an attack's cells are run."""
        suite, attack = self.suite, sortie.entry
        return Settings(
            norm=suite.norm,
            grid=suite.epsilons,
            seed=suite.seed,
            search=attack.search or suite.search,
            query_budget=attack.query_budget or suite.query_budget,
            precision=suite.precision,
            approach=sortie.approach,
            targets=sortie.targets,
        )


def make_plan(suite: Suite, file: str, folder: Path) -> Plan:
    """Load plugins and data, build every plugin, and refuse what cannot work.

    The models are only looked up: `try_models` builds those that there is work for.

    Raises: BadSuite, naming the file and the key; BadData; BadCheckpoint; UnknownPlugin; BadPlugin.
    """
    for one in suite.plugins:
        with blamed(file, "plugins"):
            registry.load_named(one, folder)
    attacks: list[tuple[AttackEntry, Member]] = []
    for number, attack in enumerate(suite.attacks, 1):
        with blamed(file, f"attacks[{number}]"):
            plugin = registry.build("attacks", attack.spec, besides=AttackEntry.model_fields)
            member = Member(plugin, attack.restarts)
            check_members([member], suite.norm, targeted=False)
            attacks.append((attack, member))
    defenses: list[tuple[Entry, Defense]] = []
    for number, defense in enumerate(suite.defenses, 1):
        with blamed(file, f"defenses[{number}]"):
            built = registry.build("defenses", defense.spec, besides=Entry.model_fields)
            defenses.append((defense, built))
    with blamed(file, "dataset"):
        dataset = registry.build("datasets", suite.dataset.spec)
        train, test = (load_split(dataset, suite.dataset.name, one) for one in SPLITS)
        _check_splits(train, test)
        indices = _choose(len(test), suite)
        test = select(test, indices)
        pixels = _checked_pixels(test.images)
    with blamed(file, "epsilons"):
        _check_grid(suite, test)
    subjects = _subjects(suite, file, folder, defenses)
    _check_apart(subjects, file)
    if any(one.defense is not None for one in subjects):
        for number, (_, built) in enumerate(defenses, 1):
            with blamed(file, f"defenses[{number}]"):
                check_defense(built, train, suite.norm, suite.headline.value, suite.seed)
    with blamed(file, "targets"):
        check_class(suite.targets, test.n_classes)
        sorties = sorties_of(attacks, suite, subjects)
    if suite.transfer is not None:
        with blamed(file, "transfer"):
            sorties += transfers_of(suite.transfer, suite, subjects)
    sorties += certification_of(subjects)
    return Plan(
        suite,
        folder,
        train,
        test,
        indices,
        fingerprint(train),
        hash_json([pixels, tensor_hash(test.labels), test.class_names]),
        tuple(subjects),
        tuple(sorties),
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


def _subjects(
    suite: Suite, file: str, folder: Path, defenses: Sequence[tuple[Entry, Defense]]
) -> list[Subject]:
    """Every model with every defense; once alone when it has its weights already.

    Raises: BadSuite.
    """
    subjects: list[Subject] = []
    for number, model in enumerate(suite.models, 1):
        with blamed(file, f"models[{number}]"):
            registry.bind("models", model.spec, besides=ModelEntry.model_fields)
            factory = registry.find("models", model.name).load()
            if _is_ready(model):
                path = None if model.checkpoint is None else located(model.checkpoint, folder)
                wrapper = None if path is None or not path.is_file() else wrapper_of(path)
                nature = Nature.of(factory, wrapper)
                subjects.append(Subject(model, model.defense, None, wrapper, nature))
                continue
        if not defenses:
            raise BadSuite(f"{file}: defenses must hold at least one, such as 'none'")
        subjects += [
            Subject(model, one.title, plugin, None, Nature.of(factory, plugin))
            for one, plugin in defenses
        ]
    return subjects


def _check_apart(subjects: Sequence[Subject], file: str) -> None:
    """Refuse two subjects that tables would call the same: `a x b` and `c`, `a` and `b x c`.

    Raises: BadSuite.
    """
    seen: set[str] = set()
    for one in subjects:
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


def try_models(plan: Plan, file: str, titles: Container[str]) -> None:
    """Build the models of these titles and run each on two images; read their checkpoints.

    Raises: BadSuite, naming the file and the key.
    """
    for number, model in enumerate(plan.suite.models, 1):
        if model.title in titles:
            with blamed(file, f"models[{number}]"):
                try_model(model.spec, plan.train, plan.checkpoint(model))


def load_split(dataset: Dataset, name: str, split: Split) -> ImageData:
    """Read a split, whatever goes wrong in a dataset plugin.

    Raises: BadData, or what the plugin raises of our own errors.
    """
    try:
        return dataset.load(split)
    except QuintainError:
        raise
    except (Exception, SystemExit) as error:  # the plugin's own code
        raise BadData(f"dataset '{name}', {split} split: {_reason(error)}") from error


def check_training(train: ImageData) -> None:
    """Look at the labels, and at a sample of the images, that a dataset brings to train on.

    Raises: BadData.
    """
    check_images(train.images.read(torch.arange(min(len(train), 256))))
    check_labels(train.labels, train.n_classes, len(train))


def _check_splits(train: ImageData, test: ImageData) -> None:
    """Look at what a dataset plugin brings, the images that will be attacked aside.

    Raises: BadData.
    """
    if (train.shape, train.class_names) != (test.shape, test.class_names):
        raise BadData("the training and the test split differ in image shape or classes")
    check_labels(test.labels, test.n_classes, len(test))
    if test.labels.dim() != 1:
        raise BadData("labels of the test split must be classes (N,), not probabilities")
    check_training(train)


def try_model(model: dict[str, Any], train: ImageData, checkpoint: Path | None = None) -> None:
    """Build a model and run it on two images; read its checkpoint if it has one.

    Raises: BadParameter, UnknownPlugin, BadCheckpoint, BadData.
    """
    name, shape = model["name"], "x".join(map(str, train.shape))
    try:
        if checkpoint is not None:
            network = open_ready(checkpoint, model, train)
        else:
            mean, std = channel_statistics(train, limit=64)
            spec = InputSpec(train.shape, train.n_classes, mean, std)
            network = build_network(model, spec, seed=0)
        with torch.no_grad():
            images = train.images.read(torch.tensor([0, 0]))
            logits = evaluation_mode(network)(images.to(dtype_of(network)))
    except QuintainError:
        raise
    except (Exception, SystemExit) as error:  # the plugin's own code
        raise BadParameter(f"'{name}' cannot take {shape} images: {_reason(error)}") from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, train.n_classes + rejects(network)):
        more = " and a rejection" if rejects(network) else ""
        raise BadData(
            f"'{name}' returns logits of shape {found} for 2 images of a dataset with "
            f"{train.n_classes} classes{more}"
        )


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def open_ready(path: Path | None, model: dict[str, Any], data: ImageData) -> nn.Module:
    """Build a network that has its weights already; fill it from a checkpoint if there is one.

    It is wrapped by the defense that the checkpoint says it was trained with, if that wraps models.

    Raises: BadCheckpoint when that is missing, damaged or for another network; BadParameter.
    """
    made_from = None if path is None else read_about(path).get("model")
    if made_from is not None and made_from != model:
        raise BadCheckpoint(
            f"checkpoint {path} is of the model {short(str(made_from))}, not {model}"
        )
    mean, std = channel_statistics(data)
    network = build_network(model, InputSpec(data.shape, data.n_classes, mean, std), seed=0)
    if path is not None:
        wrap = getattr(wrapper_of(path), "wrap", None)
        network = network if wrap is None else wrap(network)
        load_checkpoint(path, network)
    return evaluation_mode(network)


def wrapper_of(path: Path) -> Defense | None:
    """The defense that a checkpoint says its network was trained with; None when it does not say.

    It is one of those that are registered: a checkpoint is data, and chooses no code to run.

    Raises: BadCheckpoint when that defense is not there, or the file is damaged.
    """
    spec = read_about(path).get("defense_spec")
    if spec is None:
        return None
    try:
        defense: Defense = registry.build("defenses", spec, from_data=True)
    except UnknownPlugin as error:
        unknown = short(str(error), _SHOWN)
        raise BadCheckpoint(
            f"checkpoint {path} was trained with an {unknown}; one of your own loads with "
            '--plugin FILE.py (in a suite: plugins = ["FILE.py"])'
        ) from None
    except Exception as error:  # a spec that somebody else has written
        reason = str(error) if isinstance(error, QuintainError) else _reason(error)
        reason = short(reason, _SHOWN)
        raise BadCheckpoint(f"checkpoint {path}: its defense cannot be used: {reason}") from None
    return defense


def _choose(total: int, suite: Suite) -> Tensor:
    """(n,) int64: the test examples, drawn by the seed, in ascending order."""
    count = suite.n_examples or total
    if count > total:
        raise BadParameter(f"n_examples = {count}, but the test split has {total} images")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(suite.seed))
    return order[:count].sort().values
