"""`quintain bench`, end to end on a tiny network of the user's own, and what a user gets wrong."""

import re

import pandas as pd
import pytest

from quintain.bench.api.defense import InputSpec
from quintain.bench.datasets.in_memory import channel_statistics
from quintain.bench.store.checkpoints import save_checkpoint
from quintain.bench.tools.speed import command
from quintain.bench.tools.speed.table import COLUMNS
from quintain.bench.training.networks import build_network

PLUGIN = """
from torch import nn
from quintain.bench.api import registry

@registry.model("plane")
def plane(inputs, *, bias: bool = True):
    channels, height, width = inputs.shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, inputs.n_classes, bias))
"""
TINY = ["--steps", 2, "--examples", 12, "--batch-size", 8, "--repeats", 1, "--device", "cpu"]
OWN = ["--model", "plane", "--plugin", "plane.py", "--dataset", "digits", "--set", "dataset.size=8"]


@pytest.fixture
def alone(monkeypatch):
    """No peer, as where none is installed; importing them takes seconds."""
    lines = ["nobody is not installed: pip install nobody"]
    monkeypatch.setattr(command, "installed", lambda: ([], lines))


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "plane.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("alone")
def test_a_model_of_one_s_own_is_trained_and_measured(here, quintain):
    answer = quintain("bench", *OWN, "--set", "defense.epochs=2", *TINY, "--epsilon", "0.2")
    assert answer.code == 0, answer.err
    assert "nobody is not installed: pip install nobody" in answer.err
    assert "plane on digits:" in answer.out
    assert "wrote runs/bench/benchmarks.csv" in answer.out
    table = pd.read_csv(here / "runs/bench/benchmarks.csv")
    assert tuple(table.columns) == COLUMNS
    by = table.set_index(["measurement", "contender"])
    assert list(dict.fromkeys(table["measurement"])) == [
        "one-epsilon", "curve-8", "curve-32", "queries",
    ]  # fmt: skip
    assert (by.loc[("one-epsilon", "bare loop"), ["forward", "backward"]] == 2).all()
    assert by.loc[("curve-32", "bare loop"), "backward"] == 64
    assert by.loc[("curve-32", "bare loop"), "timed_epsilons"] == 1
    assert by.loc[("curve-32", "quintain"), "timed_epsilons"] == 32
    assert by.loc[("curve-8", "quintain"), "backward"] < 16
    assert by.loc[("curve-8", "quintain"), "epsilons"].split()[-1] == "0.2"
    assert (table["ratio"] > 0).all()


@pytest.mark.usefixtures("alone")
def test_a_checkpoint_is_measured_at_every_epsilon_when_asked(here, quintain):
    from quintain.bench.datasets.digits import Digits

    data = Digits(size=8).load("train")
    inputs = InputSpec(data.shape, data.n_classes, *channel_statistics(data))
    save_checkpoint(here / "plane.safetensors", _plane(here, inputs), {})
    answer = quintain(
        "bench", *OWN, "--checkpoint", "plane.safetensors", *TINY,
        "--measure", "curve-8", "--whole", "--out", "out",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    table = pd.read_csv(here / "out/benchmarks.csv")
    assert set(table["measurement"]) == {"curve-8"}
    assert set(table["timed_epsilons"]) == {8}
    assert "scaled" not in answer.out


def _plane(here, inputs):
    from quintain.bench.api import registry

    registry.load_file(here / "plane.py")
    return build_network({"name": "plane"}, inputs, seed=1)


MISTAKES = [
    (["--workload", "cnn-standrd"], "no workload 'cnn-standrd'; did you mean 'cnn-standard'"),
    (["--workload", "x"], "no workload 'x'; cnn-standard, cnn-adversarial, resnet18-standard"),
    (["--measure", "curve-9"], "no measurement 'curve-9'; did you mean 'curve-8'"),
    (["--model", "resnt"], "unknown model 'resnt'; did you mean 'resnet'"),
    (["--model", "plane", "--plugin", "gone.py"], "gone.py does not exist"),
    (["--model", "resnet", "--defense", "non"], "unknown defense 'non'; did you mean 'none'"),
    (["--model", "resnet", "--set", "model.dept=8"], "did you mean 'depth'"),
    (["--model", "resnet", "--set", "dataset.size=8"], "PART one of model, defense"),
    (["--set", "model.depth=8"], "PART one of those that other options name"),
    (["--checkpoint", "x.safetensors"], "--checkpoint x.safetensors needs --model"),
    (["--model", "resnet", "--checkpoint", "x.safetensors"], "x.safetensors does not exist"),
    (["--dataset", "digit"], "unknown dataset 'digit'; did you mean 'digits'"),
    (["--epsilon", "-1"], "epsilon -1 must be positive"),
    (["--steps", "0"], "'--steps'"),
    (["--device", "banana"], "device 'banana' cannot be used"),
    (["--out", "plane.py/x"], r"plane.py/x/benchmarks.csv cannot be written"),
]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("arguments", "says"), MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(arguments, says, here, quintain, snapshot):
    before = snapshot(here), sorted(here.rglob("*"))
    answer = quintain("bench", *arguments)
    assert answer.code == 2
    assert re.search(says, answer.error)
    assert answer.out == ""
    assert (snapshot(here), sorted(here.rglob("*"))) == before
