"""Models with known answers, a small real one, and finished runs of any size."""

import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import settings
from sklearn.datasets import load_digits
from torch import nn

# Whatever fails fails again, for everybody: examples depend on the test alone.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@dataclass(frozen=True)
class Linear:
    """Two classes parted by a plane, and how far each image is from it in each norm.

    images: (N, 1, 4, 4), far enough from 0 and 1 that the box never binds.
    """

    module: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    distances: dict[str, np.ndarray]

    def grid(self, norm, points):
        """Epsilons that lie midway between the distances of two examples."""
        ordered = np.sort(self.distances[norm])
        at = np.linspace(0, len(ordered) - 2, points + 2).astype(int)[1:-1]
        return [float(one) for one in (ordered[at] + ordered[at + 1]) / 2]


@pytest.fixture
def linear():
    generator = torch.Generator().manual_seed(3)
    images = 0.5 + 0.1 * (torch.rand(60, 1, 4, 4, generator=generator) - 0.5)
    weight = torch.randn(16, generator=generator)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.stack([-weight / 2, weight / 2]))
        module[1].bias.copy_(torch.tensor([0.25, -0.25]) * weight.sum())
    w = weight.double().numpy()
    score = (images.flatten(1).double().numpy() - 0.5) @ w
    dual = {"Linf": np.abs(w).sum(), "L2": np.sqrt((w**2).sum()), "L1": np.abs(w).max()}
    distances = {norm: np.abs(score) / length for norm, length in dual.items()}
    return Linear(module, images, torch.from_numpy(score > 0).long(), distances)


@dataclass(frozen=True)
class Digits:
    """A convolutional network that reads handwritten digits, and 200 that it was not shown."""

    module: nn.Module
    images: torch.Tensor
    labels: torch.Tensor


@pytest.fixture(scope="session")
def digits():
    data = load_digits()
    x = torch.from_numpy(data.images / 16).float()[:, None]
    y = torch.from_numpy(data.target).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1),
            nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(module.parameters(), 3e-3)
        for _ in range(4):
            for batch in torch.randperm(1597).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
                optimizer.step()
    return Digits(module.eval(), x[1597:], y[1597:])


FLAT = """
from dataclasses import dataclass
from torch import nn
from quintain.bench.api import registry
from quintain.bench.api.defense import Trained

@registry.model("flat")
def flat(inputs, number: int = 0):
    channels, height, width = inputs.shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, inputs.n_classes))

@registry.defense("as-is")
@dataclass(frozen=True)
class AsIs:
    number: int = 0

    def fit(self, model, training):
        return Trained(model)
"""


def _entries(kind, name, key, count):
    return "".join(
        f'[[{kind}]]\nname = "{name}"\nlabel = "{name}-{i}"\n{key} = {i}\n'
        for i in range(1, count + 1)
    )


@pytest.fixture(scope="session")
def fabricate():
    """Make a suite and its run directory, `out`, in a folder, finished by the real runner.

    Only the first attack is run: its result stands for all the others'.
    """
    from quintain.bench import cli
    from quintain.bench.engine import cell

    def make(folder, models, defenses, attacks, n_examples=100):
        (folder / "flat.py").write_text(FLAT)
        suite = folder / "suite.toml"
        suite.write_text(
            f'plugins = ["flat.py"]\ndataset = "digits"\nn_examples = {n_examples}\n'
            'epsilons = ["1/255", "2/255", "4/255", "8/255", "16/255", "0.10", "0.2", "0.3"]\n'
            + _entries("models", "flat", "number", models)
            + _entries("defenses", "as-is", "number", defenses)
            + _entries("attacks", "pgd", "steps", attacks)
        )
        real, results = cell.assess, []

        def canned(*arguments):
            if not results:
                results.append(real(*arguments))
            return results[0]

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("QUINTAIN_CACHE", str(folder / "cache"))
            patch.setattr(cell, "assess", canned)
            patch.setattr(os, "fsync", lambda handle: None)
            with pytest.raises(SystemExit) as ending:
                cli.main(["run", suite.name, "--out", "out", "--device", "cpu"])
        assert ending.value.code == 0
        return suite

    return make
