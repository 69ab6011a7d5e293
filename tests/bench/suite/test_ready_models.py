"""Models that have their weights already, in suites."""

import json
import shutil

import pandas as pd
import pytest
import torch

NET = """
import torch
from torch import nn
from pathlib import Path

def ready():
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    network.load_state_dict(torch.load(Path(__file__).parent / "net.pt", weights_only=True))
    return network

def fresh(inputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(256, inputs.n_classes))
"""
ATTACK = '\n[[attacks]]\nname = "fgsm"\n'
READY = '\n[[models]]\nname = "nets/net.py:ready"\nlabel = "mine"\ntrain = false\n'


@pytest.fixture
def net(tmp_path):
    """Write a factory that reads its weights, beside a suite."""
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "net.py").write_text(NET)

    def weights(seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
        torch.save(network.state_dict(), tmp_path / "nets" / "net.pt")

    weights(0)
    return weights


def run(quintain, suite, out):
    return quintain("run", suite, "--out", out, "--device", "cpu")


def test_a_model_with_weights_is_attacked_as_it_is(
    net, write_suite, quintain, tmp_path, monkeypatch
):
    suite = write_suite(models=READY, defenses="", attacks=ATTACK)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # names are relative to the suite, not to us
    answer = run(quintain, suite, tmp_path / "out")
    assert answer.code == 0, answer.err
    table = pd.read_csv(tmp_path / "out" / "tradeoff.csv")
    assert set(table["model"]) == {"mine"}
    assert set(table["defense"]) == {"pretrained"}
    repeat = json.loads((tmp_path / "out" / "manifest.json").read_text())["repeat"]
    assert f"run ../{suite.name} " in repeat
    again = run(quintain, suite, tmp_path / "out")
    assert "1 were there already" in again.out


def test_other_weights_in_the_file_are_another_network(net, write_suite, quintain, tmp_path):
    suite = write_suite(models=READY, defenses="", attacks=ATTACK)
    assert run(quintain, suite, tmp_path / "out").code == 0
    net(1)
    again = run(quintain, suite, tmp_path / "out")
    assert again.code == 0
    assert "were there already" not in again.out


def test_a_folder_can_be_moved_with_its_results(net, write_suite, quintain, tmp_path):
    suite = write_suite(models=READY, defenses="", attacks=ATTACK)
    assert run(quintain, suite, tmp_path / "out").code == 0
    for name in ("nets", "out", suite.name):
        (tmp_path / "moved").mkdir(exist_ok=True)
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    again = run(quintain, tmp_path / "moved" / suite.name, tmp_path / "moved" / "out")
    assert "1 were there already" in again.out


def test_without_the_word_it_is_trained(net, write_suite, quintain, tmp_path):
    models = '\n[[models]]\nname = "nets/net.py:fresh"\n'
    suite = write_suite(models=models, attacks=ATTACK)
    assert run(quintain, suite, tmp_path / "out").code == 0
    table = pd.read_csv(tmp_path / "out" / "tradeoff.csv")
    assert set(table["defense"]) == {"none"}
    assert table["clean_accuracy"].iloc[0] > 0.5


FRESH = '\n[[models]]\nname = "nets/net.py:fresh"\n'
AT_ODDS = '\n[[models]]\nname = "resnet"\ntrain = true\ncheckpoint = "b.pt"\n'


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (FRESH, "tiny.toml: defenses must hold at least one"),
        (READY + AT_ODDS, "models[2]: train = true, but the weights are in a checkpoint"),
        (FRESH.replace("net.py", "gone.py"), "gone.py does not exist"),
    ],
)
def test_what_cannot_be_is_refused(net, write_suite, quintain, tmp_path, models, says):
    suite = write_suite(models=models, defenses="", attacks=ATTACK)
    suite.write_text("defenses = []\n" + suite.read_text())
    answer = run(quintain, suite, tmp_path / "out")
    assert answer.code == 2
    assert says in answer.error


def test_torchvision_weights_are_not_trained(write_suite, quintain, tmp_path, monkeypatch):
    from torchvision.models import WeightsEnum, squeezenet1_1

    monkeypatch.setattr(
        WeightsEnum, "get_state_dict", lambda *_, **__: squeezenet1_1().state_dict()
    )
    models = '\n[[models]]\nname = "torchvision:squeezenet1_1"\nweights = "DEFAULT"\n'
    suite = write_suite(models=models, attacks=ATTACK, dataset='{name = "digits", size = 32}')
    answer = run(quintain, suite, tmp_path / "out")
    assert "returns logits of shape (2, 1000) for 2 images of a dataset with 10 classes" in (
        answer.error
    )  # nothing was trained that would have ten
