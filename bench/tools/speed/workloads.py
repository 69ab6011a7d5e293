"""What is attacked: built-in networks on data that ships, or a user's own model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...api import registry
from ...api.data import ImageData
from ...api.errors import BadData, BadParameter, closest
from ...api.paths import usable_cache
from ...api.shared.progress_bars import Bar
from ...datasets.in_memory import in_memory, select
from ...datasets.validation import check_training, load_split
from ...training.load import check_model, open_ready
from ...training.networks import TrainingRequest, check_defense, train_or_load

Spec = dict[str, Any]


@dataclass(frozen=True)
class BuiltIn:
    """A network to be trained for the benchmark, in seconds to minutes, and kept in the cache.

    shape: (C, H, W) of the images when no dataset is named: the digits that ship, upsampled.
    train_images: most to train on. epochs: of plain training; the adversarial one takes twice that.
    epsilon: what the adversarial training is against. Grids reach half as far again, or half as
    far when the training is plain.
    """

    model: Mapping[str, Any]
    shape: tuple[int, int, int]
    train_images: int
    epochs: int
    epsilon: float


BUILT_INS: Mapping[str, BuiltIn] = {
    "cnn": BuiltIn({"name": "small-cnn"}, (1, 28, 28), 1348, 3, 0.15),
    "resnet18": BuiltIn({"name": "resnet", "depth": 18}, (3, 32, 32), 512, 4, 0.05),
    "alexnet": BuiltIn({"name": "alexnet"}, (3, 224, 224), 512, 6, 0.05),
    "resnet50": BuiltIn({"name": "resnet", "depth": 50}, (3, 224, 224), 512, 6, 0.05),
}
_PLAIN = {"name": "none", "batch_size": 32, "augmentation": "none", "gradient_clip": 1.0}
_ADVERSARIAL = _PLAIN | {"name": "adversarial-training", "method": "fgsm"}
_OWN_EPSILON = 16 / 255
TRAININGS = ("standard", "adversarial")
SMALL = tuple(f"cnn-{training}" for training in TRAININGS)
NAMES = tuple(f"{name}-{training}" for name in BUILT_INS for training in TRAININGS)


@dataclass(frozen=True)
class Workload:
    """A network, and images that it classifies rightly.

    module: in evaluation mode, weights frozen, contiguous, on the device that the images are on.
    epsilon: the largest of the grid.
    """

    name: str
    dataset: str
    module: nn.Module
    x: Tensor
    y: Tensor
    n_classes: int
    epsilon: float

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        """(count, C, H, W) and (count,): images and labels, over again where there are few."""
        rows = torch.arange(count, device=self.x.device) % len(self.x)
        return self.x[rows], self.y[rows]


@dataclass(frozen=True)
class Candidate:
    """What becomes a workload: data that is read, and a model that has been tried on it.

    defense: a spec to train with; not used when there is a checkpoint. epsilon: the largest of the
    grid. threat: the epsilon to train against, for defenses that name none.
    """

    name: str
    dataset: str
    train: ImageData
    test: ImageData
    model: Spec
    defense: Spec
    checkpoint: Path | None
    epsilon: float
    threat: float | None = None

    def check(self) -> None:
        """Refuse what cannot work, before any work.

        Raises: QuintainError.
        """
        check_model(self.model, self.train, self.checkpoint)
        if self.checkpoint is None:
            check_training(self.train)
            defense = registry.build("defenses", self.defense)
            check_defense(defense, self.train, "Linf", self.threat)

    def ready(self, device: torch.device, count: int) -> Workload:
        """Train the network, or fetch it, and find `count` images that it gets right.

        Raises: BadData when it gets none right; CellError when training diverges.
        """
        module = self._network(device)
        module = module.to(device).to(memory_format=torch.contiguous_format)
        module = module.eval().requires_grad_(False)
        some = select(self.test, _spread(len(self.test), 2 * count))
        x, y = some.images.read(torch.arange(len(some))), some.labels
        with torch.no_grad():
            predicted = [module(part.to(device)).argmax(1).cpu() for part in x.split(64)]
        rows = (torch.cat(predicted) == y).nonzero().flatten()[:count]
        if not len(rows):
            raise BadData(f"{self.name} classifies none of {len(x)} test images rightly")
        x, y = x[rows].contiguous().to(device), y[rows].to(device)
        return Workload(self.name, self.dataset, module, x, y, self.test.n_classes, self.epsilon)

    def _network(self, device: torch.device) -> nn.Module:
        if self.checkpoint is not None:
            return open_ready(self.checkpoint, self.model, self.train)
        plugin = registry.build("defenses", self.defense)
        request = TrainingRequest(self.model, plugin, self.train, 0, device, "Linf", self.threat)
        return train_or_load(request, usable_cache(), Bar(f"train {self.name}")).model


def built_in(name: str, dataset: Spec | None, epsilon: float | None) -> Candidate:
    """One of NAMES, on digits or a named dataset. epsilon: the largest of the grid.

    Raises: QuintainError.
    """
    if name not in NAMES:
        raise BadParameter(f"no workload '{name}'{closest(name, NAMES) or ';'} {', '.join(NAMES)}")
    network, _, training = name.rpartition("-")
    recipe = BUILT_INS[network]
    train, test = _splits(dataset or {"name": "digits", "size": recipe.shape[1]})
    if dataset is None:
        train, test = (_coloured(one, recipe.shape[0]) for one in (train, test))
    train = select(train, _spread(len(train), recipe.train_images))
    defense = _PLAIN | {"epochs": recipe.epochs}
    if training == "adversarial":
        epochs = 2 * recipe.epochs
        defense = _ADVERSARIAL | {
            "epochs": epochs,
            "epsilon": recipe.epsilon,
            "warmup_epochs": epochs // 2,
            "validate_every": epochs,
        }
    reach = 1.5 if training == "adversarial" else 0.5
    title, largest = _title(dataset), epsilon or reach * recipe.epsilon
    return Candidate(name, title, train, test, dict(recipe.model), defense, None, largest)


def own(
    model: Spec, defense: Spec, dataset: Spec | None, checkpoint: Path | None, epsilon: float | None
) -> Candidate:
    """A model plugin of the user's choice. epsilon: the largest of the grid.

    A defense that needs an epsilon trains against the middle of the grid.

    Raises: QuintainError.
    """
    train, test = _splits(dataset or {"name": "digits"})
    name, largest = str(model["name"]), epsilon or _OWN_EPSILON
    title, threat = _title(dataset), largest / 2
    return Candidate(name, title, train, test, model, defense, checkpoint, largest, threat)


def _title(dataset: Spec | None) -> str:
    return "digits" if dataset is None else str(dataset["name"])


def _splits(dataset: Spec) -> tuple[ImageData, ImageData]:
    source = registry.build("datasets", dataset)
    return load_split(source, dataset["name"], "train"), load_split(source, dataset["name"], "test")


def _spread(total: int, count: int) -> Tensor:
    """(n,) int64: at most `count` rows of a dataset, which may be sorted by class."""
    chosen = min(count, total)
    return torch.arange(chosen) * total // chosen


def _coloured(data: ImageData, channels: int) -> ImageData:
    """Grey images with as many equal channels as asked for."""
    if data.shape[0] == channels:
        return data
    grey = data.images.read(torch.arange(len(data)))
    return in_memory(grey.expand(-1, channels, -1, -1), data.labels, data.class_names)
