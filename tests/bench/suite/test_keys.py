"""What a cell's key and its record know: the code, the data and the files that made its number."""

import io

import numpy as np
import pandas as pd
import pytest
import torch

from quintain.bench.api import epsilon
from quintain.bench.store import hashing
from quintain.bench.victim.probe import probe, same_answers

ATTACK = """
from dataclasses import dataclass
import torch
from quintain.bench.api import registry

{before}

@dataclass
class State:
    x_adv: torch.Tensor

@registry.attack("mine")
@dataclass(frozen=True)
class Mine:
    steps = 1
    access = "white-box"

    def start(self, problem):
        return State(problem.x)

    def step(self, problem, state):
        y = problem.y
        loss = lambda logits: torch.nn.functional.cross_entropy(logits, y, reduction="none")
        slope = problem.victim.gradient(state.x_adv, loss).gradient
        return State(problem.ball.project(problem.x + {size} * slope.sign()))
"""
MINE = '[[attacks]]\nname = "mine"\n'


def untimed(table):
    """A table's text without the column that says how long it took."""
    return pd.read_csv(io.StringIO(table)).drop(columns="seconds").to_csv()


@pytest.fixture
def again(tmp_path, quintain, write_suite, cache):
    """Run a suite of one network once more; return how many cells were there already."""

    def run(**keys):
        suite = write_suite(**keys)
        answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu", "--update")
        assert answer.code == 0, answer.error
        there = answer.out.splitlines()[-1].partition(" cells done (")[2]
        return int(there.split()[0]) if there else 0

    return run


def test_a_module_beside_a_plugin_is_part_of_the_key(tmp_path, again):
    (tmp_path / "helper.py").write_text("SIZE = 0.3\n")
    before = "import sys\nsys.path.insert(0, __file__.rpartition('/')[0])\nfrom helper import SIZE"
    (tmp_path / "mine.py").write_text(ATTACK.format(before=before, size="SIZE"))
    keys = {"plugins": '["mine.py"]', "attacks": MINE}
    assert again(**keys) == 0
    assert again(**keys) == 1
    (tmp_path / "helper.py").write_text("SIZE = 0.0\n")
    assert again(**keys) == 0


@pytest.mark.parametrize("where", ["on import", "in a step"])
def test_a_file_that_an_attack_reads_makes_its_cell_stale(where, tmp_path, again):
    data = tmp_path / "size.npy"
    np.save(data, np.float64(0.3))
    load = f"float(np.load({str(data)!r}))"
    before = "import numpy as np\n" + (f"SIZE = {load}" if where == "on import" else "")
    size = "SIZE" if where == "on import" else load
    (tmp_path / "mine.py").write_text(ATTACK.format(before=before, size=size))
    keys = {"plugins": '["mine.py"]', "attacks": MINE}
    assert again(**keys) == 0
    assert again(**keys) == 1
    np.save(data, np.float64(0.0))
    assert again(**keys) == 0
    assert again(**keys) == 1


NETWORK = """
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(256, 10, generator=generator))
        self.sign = {sign}

    def forward(self, x):
        return self.sign * (x.flatten(1) @ self.weight)

def make():
    return Scaled()
"""


def test_a_number_in_a_module_that_is_no_tensor_is_noticed(tmp_path, again):
    sign = tmp_path / "sign.txt"
    sign.write_text("1.0")
    read = f"float(__import__('pathlib').Path({str(sign)!r}).read_text())"
    (tmp_path / "net.py").write_text(NETWORK.format(sign=read))
    keys = {"models": '[[models]]\nname = "net.py:make"\ntrain = false\n', "defenses": ""}
    first = again(**keys)
    assert first == 0
    assert again(**keys) > 0
    sign.write_text("-1.0")
    assert again(**keys) == 0


def test_one_epsilon_in_two_spellings_is_one(again, tmp_path):
    grids = ['["0.1", "0.20"]', "[0.10, 0.2]"]
    assert again(epsilons=grids[0]) == 0
    assert again(epsilons=grids[1]) > 0
    table = (tmp_path / "out" / "tradeoff.csv").read_text()
    assert ",0.10," in table
    assert ",0.20," not in table
    assert epsilon.Epsilon.parse("0.1") == epsilon.Epsilon.parse("0.10")
    assert epsilon.Epsilon.parse("8/255") != epsilon.Epsilon.parse("0.031")


def test_a_configuration_holds_no_path_of_a_module():
    from quintain.attacks.white_box.pgd import PGD
    from quintain.bench.engine.config import CellConfig

    shown = hashing.configuration(PGD())
    assert (shown["kind"], shown["plugin"], shown["version"]) == ("attacks", "pgd", PGD.version)
    assert shown["gradient"]["plugin"] == "autograd"
    settings = hashing.configuration(CellConfig("Linf", epsilon.parse_grid(["0.10"])))
    assert "quintain" not in repr([shown, settings])
    assert settings["grid"] == [{"value": 0.1}]


def test_answers_to_fixed_images_tell_networks_apart():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    first = probe(module, (1, 8, 8), torch.device("cpu"))
    assert len(first) == 8
    assert same_answers(first, probe(module, (1, 8, 8), torch.device("cpu")))
    with torch.no_grad():
        module[1].weight.mul_(1 + 1e-5)
    assert same_answers(first, probe(module, (1, 8, 8), torch.device("cpu")))
    with torch.no_grad():
        module[1].weight.mul_(1.01)
    assert not same_answers(first, probe(module, (1, 8, 8), torch.device("cpu")))
    assert not same_answers(first, first[:4])


def test_another_networks_weights_under_this_ones_name_are_not_taken(tmp_path, again, monkeypatch):
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))
    assert again() == 0
    assert again(seed=1) == 0
    first, second = sorted((tmp_path / "cache" / "networks").glob("*.safetensors"))
    for one, other in ((first, second), (second, first)):
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        for file in (tmp_path / "out" / "records").glob("*.parquet"):
            file.unlink()
        before = (tmp_path / "out" / "tradeoff.csv").read_text()
        again(seed=1)
        assert untimed((tmp_path / "out" / "tradeoff.csv").read_text()) == untimed(before)
        one.write_bytes(content)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "gone", "another's"])
def test_damaged_adversarial_examples_are_made_again(damage, tmp_path, again):
    keys = {"save_adversarials": "true"}
    assert again(**keys) == 0
    count = again(**keys)
    one, other = sorted((tmp_path / "out" / "records").glob("*.safetensors"))
    content = one.read_bytes()
    middle = len(content) // 2
    made = {
        "cut": content[:-3],
        "bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
        "another's": other.read_bytes(),
    }
    one.unlink() if damage == "gone" else one.write_bytes(made[damage])
    assert again(**keys) == count - 1
    assert one.read_bytes() == content
