"""A suite made ready: every plugin built and every combination tried, before any work is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import registry
from .checkpoints import load_checkpoint, read_about
from .datasets.memory import channel_statistics, select
from .engine import Member
from .errors import BadCheckpoint, BadData, BadParameter, BadSuite, QuintainError
from .evaluation import check_members
from .protocols import Defense, ImageData, InputSpec
from .suite import AttackEntry, Entry, ModelEntry, Suite
from .training import build_network


@dataclass(frozen=True)
class Subject:
    """A model and the defense to train it with; None when its weights are in a checkpoint."""

    model: ModelEntry
    defense_title: str
    defense: Defense | None

    @property
    def title(self) -> str:
        """What progress lines call it."""
        return f"{self.model.title} x {self.defense_title}"


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    train: the training split. images, labels, indices: the chosen test examples, (N, C, H, W),
    (N,) and (N,).
    """

    suite: Suite
    folder: Path
    train: ImageData
    test: ImageData
    indices: Tensor
    subjects: tuple[Subject, ...]
    attacks: tuple[tuple[AttackEntry, Member], ...]

    def checkpoint(self, entry: ModelEntry) -> Path | None:
        """Where a model's checkpoint is: relative to the suite's folder."""
        return None if entry.checkpoint is None else self.folder / entry.checkpoint


def make_plan(suite: Suite, file: str, folder: Path) -> Plan:
    """Load plugins and data, build everything once, and refuse what cannot work.

    Raises: BadSuite, naming the file and the key; BadData; BadCheckpoint; UnknownPlugin; BadPlugin.
    """
    for one in suite.plugins:
        with _blame(file, "plugins"):
            registry.load_file(folder / one)
    attacks = []
    for number, attack in enumerate(suite.attacks, 1):
        with _blame(file, f"attacks[{number}]"):
            member = Member(registry.build("attacks", attack.spec), attack.restarts)
            check_members([member], suite.norm, targeted=False)
            attacks.append((attack, member))
    defenses: list[tuple[Entry, Defense]] = []
    for number, defense in enumerate(suite.defenses, 1):
        with _blame(file, f"defenses[{number}]"):
            defenses.append((defense, registry.build("defenses", defense.spec)))
    with _blame(file, "dataset"):
        dataset = registry.build("datasets", suite.dataset.spec)
        train, test = dataset.load("train"), dataset.load("test")
        chosen = _choose(len(test), suite)
    subjects: list[Subject] = []
    for number, model in enumerate(suite.models, 1):
        with _blame(file, f"models[{number}]"):
            try_model(model, folder, train)
        if model.checkpoint is not None:
            subjects.append(Subject(model, model.defense, None))
        else:
            subjects.extend(Subject(model, one.title, plugin) for one, plugin in defenses)
    return Plan(suite, folder, train, select(test, chosen), chosen, tuple(subjects), tuple(attacks))


def try_model(entry: ModelEntry, folder: Path, train: ImageData) -> None:
    """Build a model and run it on two images; read its checkpoint if it has one.

    Raises: BadParameter, UnknownPlugin, BadCheckpoint, BadData.
    """
    if entry.checkpoint is not None:
        network = open_checkpoint(folder / entry.checkpoint, entry.spec, train)
    else:
        mean, std = channel_statistics(train, limit=64)
        spec = InputSpec(train.shape, train.n_classes, mean, std)
        network = build_network(entry.spec, spec, seed=0)
    with torch.no_grad():
        try:
            logits = network.eval()(train.images.read(torch.tensor([0, 0])))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            shape = "x".join(map(str, train.shape))
            raise BadParameter(f"'{entry.name}' cannot take {shape} images: {reason}") from None
    if tuple(logits.shape) != (2, train.n_classes):
        raise BadData(
            f"'{entry.name}' returns logits of shape {tuple(logits.shape)} for 2 images of a "
            f"dataset with {train.n_classes} classes"
        )


def open_checkpoint(path: Path, model: dict[str, Any], data: ImageData) -> nn.Module:
    """Build a network and fill it from a checkpoint.

    Raises: BadCheckpoint when it is missing, damaged or for another network; BadParameter.
    """
    about = read_about(path)
    made_from = about.get("model")
    if made_from is not None and dict(made_from) != model:
        raise BadCheckpoint(f"checkpoint {path} is of the model {made_from}, not {model}")
    mean, std = channel_statistics(data)
    network = build_network(model, InputSpec(data.shape, data.n_classes, mean, std), seed=0)
    load_checkpoint(path, network)
    return network.eval()


def _choose(total: int, suite: Suite) -> Tensor:
    """(n,) int64: the test examples, drawn by the seed, in ascending order."""
    count = suite.n_examples or total
    if count > total:
        raise BadParameter(f"n_examples = {count}, but the test split has {total} images")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(suite.seed))
    return order[:count].sort().values


@contextmanager
def _blame(file: str, key: str) -> Iterator[None]:
    """Say of an error which file and key it comes from."""
    try:
        yield
    except QuintainError as error:
        raise BadSuite(f"{file}: {key}: {error}") from error
