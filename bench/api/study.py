"""What a study is: an experiment on networks that gives tables, figures and notes.

    @dataclass(frozen=True)
    class Brightness:
        "How predictions change as images get darker."

        steps: int = 5

        def run(self, context: StudyContext) -> StudyResult:
            data = context.data("test")
            ...
            return StudyResult(tables={"accuracy": table}, notes=["..."])

Its fields are its sizes. It is registered like any plugin, with `@registry.study("brightness")` or
the entry point group `quintain.studies`, and run by `quintain study brightness`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .data import ImageData
from .epsilon import Norm

Spec = str | Mapping[str, Any]


@dataclass(frozen=True)
class StudiedNetwork:
    """A network in evaluation mode on the context's device, and what tables call it.

    flags: what makes it doubtful, such as a training that did not learn.
    """

    title: str
    module: nn.Module
    flags: Sequence[str] = ()


@dataclass(frozen=True)
class StudyDefaults:
    """What a study looks at where the user names nothing else: its class attribute `defaults`.

    Specs as in a suite. Each of the defenses makes one network of the model. n_examples: of the
    test split.
    """

    dataset: Spec = "shapes"
    model: Spec = field(default_factory=lambda: {"name": "resnet", "depth": 8})
    defenses: Sequence[Spec] = ("none",)
    n_examples: int = 60


@dataclass(frozen=True)
class StudyResult:
    """What came of a study.

    tables: name -> rows; each becomes a CSV file. figures: name -> a matplotlib Figure; each
    becomes a PNG and an SVG file. notes: what the numbers say, and do not say, a sentence each.
    """

    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


class StudyContext(Protocol):
    """What a study is given: networks, data, attacks, random numbers, and where it reports."""

    networks: Sequence[StudiedNetwork]
    device: torch.device
    seed: int

    def data(self, split: Literal["train", "test"], most: int | None = None) -> ImageData:
        """A split of the dataset, of the test split the examples that the command chose.

        most: at most so many of them, drawn by the seed.
        """

    def train(self, model: Spec, defense: Spec = "none", seed: int | None = None) -> nn.Module:
        """A network of the study's own on the dataset, trained, or fetched from the cache."""

    def untrained(self, model: Spec | None = None, seed: int | None = None) -> nn.Module:
        """A network with its first weights; by default of the networks' own architecture."""

    def attack(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        epsilon: str | float,
        attack: Spec = "pgd",
        norm: Norm = "Linf",
        targets: Tensor | None = None,
    ) -> Tensor:
        """Images (N, C, H, W) within epsilon of those given, at the end of an attack.

        Also where the attack did not succeed. targets: (N,) classes to reach.
        """

    def draws(self, name: str) -> np.random.Generator:
        """Random numbers that depend on the seed and the name alone."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Report `done` of `total` for the bar."""


class Study(Protocol):
    """A study plugin: a frozen dataclass whose fields are its sizes."""

    def run(self, context: StudyContext) -> StudyResult:
        """Do the experiment."""
