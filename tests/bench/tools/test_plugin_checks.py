"""The kit on models, defenses, datasets and studies: ours pass, and each mistake is found."""

from dataclasses import dataclass, field

import pandas as pd
import pytest
import torch
from torch import nn

from quintain.bench.api import registry
from quintain.bench.api.data import ImageData
from quintain.bench.api.defense import Trained
from quintain.bench.api.study import StudyResult
from quintain.bench.datasets.in_memory import in_memory
from quintain.bench.tools.conformance import check_plugin


@pytest.mark.parametrize(
    "name", ["small-cnn", "digits", "none", "bit-depth", "feature-squeezing", "redundancy"]
)
def test_ours_pass(name):
    for report in check_plugin(name):
        assert report.passed, report.text()


def failed(decorate, plugin):
    """The checks that a plugin does not meet."""
    with registry.temporary():
        decorate("mine")(plugin)
        (report,) = check_plugin("mine")
    return report.failed()


class Net(nn.Module):
    """A network with one mistake, or none."""

    def __init__(self, inputs, mistake=""):
        super().__init__()
        self.mistake = mistake
        self.conv = nn.Conv2d(inputs.shape[0], 8, 3)
        self.linear = nn.Linear(8, inputs.n_classes)
        if mistake == "seeds":
            with torch.no_grad():
                for one in self.parameters():
                    one.fill_(0.01)
                self.linear.weight.mul_(torch.arange(8))
        if mistake == "checkpoints":
            self.hidden = torch.randn(inputs.n_classes)
        if mistake == "copies":
            self.lock = (one for one in ())

    def forward(self, x):
        if self.mistake == "inputs":
            x.mul_(0.5)
        maps = self.conv(x - 0.5).relu()
        if self.mistake == "rows":
            maps = maps - maps.mean(dim=0)
        logits = self.linear(maps.mean(dim=(2, 3)))
        if self.mistake == "repeatable":
            logits = logits + torch.randn_like(logits)
        if self.mistake == "builds":
            logits = logits / 0.0
        if self.mistake == "gradients":
            logits = logits + 0.0 * maps.mean() if self.training else (logits * 0.0).round()
        if self.mistake == "checkpoints":
            logits = logits + self.hidden
        if self.mistake == "trains" and self.training:
            return logits, logits
        return logits


@pytest.mark.parametrize(
    "mistake",
    ["", "builds", "repeatable", "rows", "inputs", "seeds", "checkpoints", "gradients", "trains",
     "copies"],
)  # fmt: skip
def test_a_models_mistake_is_found(mistake):
    found = failed(registry.model, lambda inputs: Net(inputs, mistake))
    assert (mistake in found) if mistake else not found, found


class Shuffled:
    """Images that are read in another order than asked for."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def read(self, indices):
        return self.data[indices.sort().values]

    def fingerprint(self):
        return f"shuffled {len(self.data)}"


def dataset(mistake):
    @dataclass(frozen=True)
    class Mine:
        calls: list = field(default_factory=list, compare=False)

        def load(self, split):
            seed = {"train": 0, "test": 0 if mistake == "apart" else 1}[split]
            source = torch.Generator().manual_seed(seed)
            if mistake == "repeatable":
                source.seed()
            count = 40 if split == "train" else 20
            labels = torch.arange(count) % 2
            if mistake == "labels" and split == "train":
                labels = torch.zeros_like(labels)
            images = torch.rand(count, 3, 4, 4, generator=source)
            if mistake == "images":
                images[:] = images[:1]
            names = ("a", "b", "c") if mistake == "loads" and split == "test" else ("a", "b")
            made = in_memory(images, labels, names)
            if mistake == "order":
                return ImageData(Shuffled(images), labels, names, made.shape)
            return made

    return Mine


@pytest.mark.parametrize(
    "mistake", ["", "loads", "images", "labels", "order", "repeatable", "apart"]
)
def test_a_datasets_mistake_is_found(mistake):
    found = failed(registry.dataset, dataset(mistake))
    assert (mistake in found) if mistake else not found, found


def defense(mistake):
    class Around(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    @dataclass(frozen=mistake != "settings")
    class Mine:
        steps: int = 40

        def fit(self, model, training):
            x = training.data.images.read(torch.arange(len(training.data)))
            if mistake == "data":
                training.data.images.data.mul_(0.9)
            if mistake == "seeds":
                torch.manual_seed(torch.seed())
                nn.init.normal_(next(model.parameters()))
            if mistake == "fits":
                return model
            optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
            for _ in range(0 if mistake == "learns" else self.steps):
                loss = nn.functional.cross_entropy(model.train()(x), training.data.labels)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            history = ({"loss": "small" if mistake == "history" else 0.5},)
            made = Around(model) if mistake in ("wraps", "wrapped") else model
            return Trained(made.eval(), history)

        if mistake == "wrapped":

            def wrap(self, model):
                return Around(model)

    return Mine


@pytest.mark.parametrize(
    "mistake",
    ["", "wrapped", "settings", "fits", "learns", "data", "seeds", "history", "wraps"],
)
def test_a_defenses_mistake_is_found(mistake):
    found = failed(registry.defense, defense(mistake))
    assert (mistake in found) if mistake not in ("", "wrapped") else not found, found


def study(mistake):
    @dataclass(frozen=mistake != "settings")
    class Mine:
        number: int = 3

        def run(self, context):
            if mistake == "runs":
                return {"rows": 1}
            source = context.draws("numbers")
            values = [source.random() for _ in range(self.number)]
            if mistake == "repeatable":
                values = torch.rand(self.number).tolist()
            if mistake == "tables":
                values = []
            for network in context.networks:
                network.module.train(mistake == "networks")
            figures = {"one": "no figure"} if mistake == "figures" else {}
            return StudyResult({"one": pd.DataFrame({"value": values})}, figures, ["a note"])

    return Mine


@pytest.mark.parametrize(
    "mistake", ["", "settings", "runs", "tables", "figures", "repeatable", "networks"]
)
def test_a_studys_mistake_is_found(mistake):
    found = failed(registry.study, study(mistake))
    assert (mistake in found) if mistake else not found, found
