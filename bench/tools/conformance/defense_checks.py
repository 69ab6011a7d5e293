"""What a defense must keep to. Each check is a function whose first line says what it demands."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ...api import registry
from ...api.data import ImageData
from ...api.defense import Defense, InputSpec, Trained, Training
from ...api.progress import Silent
from ...api.shared.module_state import evaluation_mode
from ...datasets.in_memory import in_memory
from ...store.checkpoints import load_checkpoint, save_checkpoint
from ...store.hashing import configuration
from ...training.networks import build_network
from .report import Failed, NotRun

_IMAGES, _CLASSES, _SIDE = 300, 3, 16
_MODEL = {"name": "small-cnn", "width": 0.25}
_EPSILON = 0.05
_RTOL, _ATOL = 1e-3, 1e-4


@dataclass
class DefenseTrial:
    """A defense plugin with its default settings, on images that are easy to tell apart.

    file: where its code is. failed: whether `fit` was tried and raised.
    """

    name: str
    file: str
    failed: bool = False

    def build(self) -> Defense:
        """The plugin."""
        found: Defense = registry.build("defenses", self.name)
        return found

    @cached_property
    def data(self) -> ImageData:
        """What it trains on."""
        return easy_images()

    def model(self, seed: int = 0) -> nn.Module:
        """A fresh network."""
        return build_network(_MODEL, InputSpec((1, _SIDE, _SIDE), _CLASSES, (0.4,), (0.3,)), seed)

    def fit(self, seed: int = 0) -> tuple[nn.Module, Trained]:
        """The network that was given, and what the defense made of it."""
        training = Training(
            self.data, seed, torch.device("cpu"), Silent(), "Linf", _EPSILON, self._obtain
        )
        model = self.model(seed)
        return model, self.build().fit(model, training)

    def _obtain(
        self, defense: Defense, *, seed: int | None = None, model: Mapping[str, Any] | None = None
    ) -> Trained:
        number = seed or 0
        spec = _MODEL if model is None else model
        inputs = InputSpec((1, _SIDE, _SIDE), _CLASSES, (0.4,), (0.3,))
        training = Training(
            self.data, number, torch.device("cpu"), Silent(), "Linf", _EPSILON, self._obtain
        )
        return defense.fit(build_network(spec, inputs, number), training)

    @cached_property
    def fitted(self) -> tuple[nn.Module, Trained]:
        """Of seed 0."""
        return self.fit()

    def trained(self) -> Trained:
        """What the defense made. Raises: NotRun where the check of it is not met."""
        if self.failed:
            raise NotRun("not tried: fit did not run to the end")
        made = self.fitted[1]
        if not isinstance(made, Trained) or not isinstance(made.model, nn.Module):
            raise NotRun("not tried: it did not give a Trained")
        return made

    @property
    def stochastic(self) -> bool:
        """Whether it, or a layer of what it made, says that it uses random numbers."""
        layers = self.trained().model.modules()
        return bool(getattr(self.build(), "stochastic", False)) or any(
            getattr(one, "stochastic", False) for one in layers
        )


def easy_images() -> ImageData:
    """Noise, with a bright bar in another third of the image for each class."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(_IMAGES) % _CLASSES
    images = 0.4 * torch.rand(_IMAGES, 1, _SIDE, _SIDE, generator=source)
    for row, label in enumerate(labels.tolist()):
        images[row, :, 5 * label : 5 * label + 5] += 0.5
    return in_memory(images, labels, ("top", "middle", "bottom"))


def settings(trial: DefenseTrial) -> None:
    """It is a frozen dataclass: hashable, and the same in repr and records when built again."""
    one, again = trial.build(), trial.build()
    parameters = getattr(type(one), "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise Failed(f"{type(one).__name__} is not a @dataclass(frozen=True)")
    if one != again or repr(one) != repr(again) or hash(one) != hash(again):
        raise Failed(f"built twice it differs: {one!r} and {again!r}")
    if dataclasses.replace(one) != one:  # type: ignore[type-var]
        raise Failed("a copy of it with the same fields is not equal to it")
    shown = json.dumps(configuration(one), allow_nan=False)
    if " at 0x" in shown:
        raise Failed(f"its records would hold an address, which no rerun repeats: {shown}")


def fits(trial: DefenseTrial) -> None:
    """`fit` gives a Trained, whose model gives a finite logit for each class."""
    trial.failed = True
    made = trial.fitted[1]
    trial.failed = False
    if not isinstance(made, Trained) or not isinstance(made.model, nn.Module):
        raise Failed(f"fit returned {type(made).__name__}, expected a Trained with a model")
    logits = _logits(trial, made.model)
    expected = (_IMAGES, _CLASSES + bool(getattr(made.model, "rejects", False)))
    if tuple(logits.shape) != expected:
        raise Failed(f"logits of shape {tuple(logits.shape)}, expected {expected}")
    if not logits.isfinite().all():
        raise Failed("some logits are not finite")


def learns(trial: DefenseTrial) -> None:
    """What it trains on, it gets right more often than by chance."""
    logits = _logits(trial, trial.trained().model)[:, :_CLASSES]
    right = float((logits.argmax(dim=1) == trial.data.labels).double().mean())
    if right < 0.5:
        raise Failed(f"{right:.0%} of images that are easy to tell apart, by chance 33%")


def data(trial: DefenseTrial) -> None:
    """The training images and labels are left as they were."""
    trial.trained()
    rows, before = torch.arange(_IMAGES), easy_images()
    if not torch.equal(trial.data.images.read(rows), before.images.read(rows)):
        raise Failed("images were changed in place")
    if not torch.equal(trial.data.labels, before.labels):
        raise Failed("labels were changed in place")


def seeds(trial: DefenseTrial) -> None:
    """The same seed gives the same weights again."""
    one, again = trial.trained().model.state_dict(), trial.fit()[1].model.state_dict()
    changed = [name for name in one if not torch.equal(one[name], again[name])]
    if changed:
        raise Failed(f"trained twice with one seed, {changed[0]} differs")


def history(trial: DefenseTrial) -> None:
    """The history is a mapping of numbers for each epoch."""
    for number, row in enumerate(trial.trained().history, 1):
        wrong = [name for name, value in row.items() if not isinstance(value, (int, float))]
        if wrong:
            raise Failed(f"epoch {number}: {wrong[0]} is {row[wrong[0]]!r}, expected a number")


def wraps(trial: DefenseTrial) -> None:
    """A module of its own is made again by `wrap`, and filled from a checkpoint."""
    made = trial.trained()
    given = trial.fitted[0]
    if made.model is given:
        return
    wrap = getattr(trial.build(), "wrap", None)
    if wrap is None:
        raise Failed("fit returned another module than it was given, and there is no `wrap`")
    again = wrap(trial.model(seed=1))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "made.safetensors"
        save_checkpoint(path, made.model, {})
        load_checkpoint(path, again)
    if trial.stochastic:
        return
    if not torch.allclose(
        _logits(trial, again), _logits(trial, made.model), rtol=_RTOL, atol=_ATOL
    ):
        raise Failed("what `wrap` makes, filled with the same weights, gives other logits")


@torch.no_grad()
def _logits(trial: DefenseTrial, model: nn.Module) -> Tensor:
    logits: Tensor = evaluation_mode(model)(trial.data.images.read(torch.arange(_IMAGES)))
    return logits


CHECKS = (settings, fits, learns, data, seeds, history, wraps)


def trial_of(name: str, source: str) -> DefenseTrial:
    """What the checks look at."""
    return DefenseTrial(name, source if Path(source).is_file() else "")
