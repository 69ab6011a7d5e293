"""The context of a study: networks from the cache, data, attacks, random numbers, progress."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..api import registry
from ..api.data import Dataset, ImageData
from ..api.defense import Trained
from ..api.epsilon import Epsilon, Norm
from ..api.errors import BadParameter
from ..api.shared.module_state import evaluation_mode
from ..api.shared.progress_bars import Bar
from ..api.study import Spec, StudiedNetwork
from ..datasets.in_memory import drawn_rows, fingerprint, select
from ..datasets.validation import load_split
from ..engine.perturb import perturb
from ..training.networks import TrainingRequest, train_or_load


@dataclass
class Context:
    """What a study is given, as bench.api.study.StudyContext describes.

    dataset: a plugin. n_examples: how many of the test split, drawn by the seed as in a suite; None
    for all. norm, epsilon: the threat that defenses train against. model: the spec of the networks'
    architecture, where they have one. cache: where trained networks are kept.
    """

    dataset: Dataset
    dataset_name: str
    n_examples: int | None
    norm: Norm
    epsilon: Epsilon
    seed: int
    device: torch.device
    cache: Path | None
    bar: Bar
    model: dict[str, Any] | None = None
    networks: Sequence[StudiedNetwork] = ()
    _splits: dict[str, ImageData] = field(default_factory=dict)
    _train_hash: str = ""

    def data(self, split: Literal["train", "test"], most: int | None = None) -> ImageData:
        """A split, or at most so many examples of it; of the test split those of the command."""
        if split not in self._splits:
            data = load_split(self.dataset, self.dataset_name, split)
            self._splits[split] = self._drawn(data, self.n_examples if split == "test" else None)
        return self._drawn(self._splits[split], most)

    def _drawn(self, data: ImageData, most: int | None) -> ImageData:
        if most is None or most >= len(data):
            return data
        return select(data, drawn_rows(len(data), most, self.seed))

    def train(self, model: Spec, defense: Spec = "none", seed: int | None = None) -> nn.Module:
        """A network trained on the train split, or fetched from the cache."""
        return self.trained(model, defense, seed).model

    def trained(self, model: Spec, defense: Spec, seed: int | None = None) -> Trained:
        """The same with its history and flags. Raises: CellError when training diverges."""
        spec = {"name": model} if isinstance(model, str) else dict(model)
        data = self.data("train")
        self._train_hash = self._train_hash or fingerprint(data)
        request = TrainingRequest(
            spec,
            registry.build("defenses", defense),
            data,
            self.seed if seed is None else seed,
            self.device,
            self.norm,
            self.epsilon.value,
            self._train_hash,
        )
        return train_or_load(request, self.cache, Bar(f"train {spec['name']}"))

    def untrained(self, model: Spec | None = None, seed: int | None = None) -> nn.Module:
        """A network with its first weights, in evaluation mode.

        Raises: BadParameter where no model is named and the networks have none in common.
        """
        spec = self.model if model is None else model
        if spec is None:
            raise BadParameter("name a model: the networks are not of one architecture")
        request = TrainingRequest(
            {"name": spec} if isinstance(spec, str) else dict(spec),
            registry.build("defenses", "none"),
            self.data("train"),
            self.seed if seed is None else seed,
            self.device,
            self.norm,
            None,
        )
        return evaluation_mode(request.build().to(self.device))

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
        """Images within epsilon of those given, at the end of an attack."""
        return perturb(
            network,
            registry.build("attacks", attack),
            images,
            labels if targets is None else targets,
            Epsilon.parse(epsilon),
            norm,
            seed=self.seed,
            targeted=targets is not None,
        )

    def draws(self, name: str) -> np.random.Generator:
        """Random numbers that depend on the seed and the name alone."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Show `done` of `total`."""
        self.bar.update(done, total, note)
