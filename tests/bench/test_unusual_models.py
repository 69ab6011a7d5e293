"""A model of an odd make: its cells fail, each in a line, or work; those of others go on."""

import copy
import json

import pytest
import torch
from torch import nn

from quintain.bench import evaluate
from quintain.bench.api.errors import CellError
from quintain.bench.api.shared.module_state import evaluation_mode, state_hash
from quintain.bench.store.checkpoints import weights_hash

MODELS = """
import torch
from torch import nn

def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10))

class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = plain()

    def forward(self, x):
        return self.inner(x)

def quantised():
    return torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear}, dtype=torch.qint8)

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))

class Extra(Around):
    def get_extra_state(self):
        return {"version": 3, "table": [torch.ones(2), "text"]}

    def set_extra_state(self, state):
        pass

extra_state = Extra

def frozen():
    return torch.jit.freeze(torch.jit.script(Around().eval()))

class Exported(Around):  # exported modules refuse so
    def eval(self):
        raise NotImplementedError("Calling eval() is not supported yet.")

    train = eval

exported = Exported

class NoCopies(Around):
    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")

no_copies = NoCopies

class NoWeights(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, 40:50]

no_weights = NoWeights

def inference():
    with torch.inference_mode():
        return Around()

class NoState(Around):
    def state_dict(self, *given, **named):
        raise RuntimeError("has no state")

no_state = NoState

class Odd(Around):
    def forward(self, x):
        if len(x) > 2:
            raise SystemExit(3)
        return self.inner(x)

leaves = Odd
"""
WORKING = ["plain", "lazy", "extra_state", "frozen", "exported", "no_copies", "no_weights"]
ALL = ["quantised", "no_state", "leaves", "inference", *WORKING]
FAILING = {  # the first and the last have no gradient
    ("quantised", "fgsm"),
    ("no_state", "fgsm"),
    ("no_state", "noise"),
    ("leaves", "fgsm"),
    ("leaves", "noise"),
    ("inference", "fgsm"),
}


@pytest.mark.filterwarnings("ignore:.*(torch.ao|torch.jit|TypedStorage|quantized)")
def test_one_unusual_model_does_not_end_a_run(tmp_path, write_suite, quintain):
    (tmp_path / "odd.py").write_text(MODELS)
    models = "".join(
        f'[[models]]\nname = "odd.py:{one}"\nlabel = "{one}"\ntrain = false\n' for one in ALL
    )
    attacks = '[[attacks]]\nname = "fgsm"\n[[attacks]]\nname = "noise"\nsteps = 2\n'
    suite = write_suite(models=models, defenses="", attacks=attacks, n_examples=60)
    answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu")
    assert answer.code == 1
    assert "Traceback" not in answer.out + answer.err
    cells = json.loads((tmp_path / "out" / "manifest.json").read_text())["cells"]
    assert len(cells) == 2 * len(ALL)
    failed = {(one["model"], one["attack"]) for one in cells if one["status"] == "failed"}
    assert failed == FAILING
    assert all("\n" not in one["error"] for one in cells if one["status"] == "failed")
    again = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu")
    assert f"({len(cells) - len(failed)} were there already)" in again.out


def test_a_trained_network_with_other_state_is_used_though_it_cannot_be_kept(
    tmp_path, write_suite, quintain
):
    (tmp_path / "odd.py").write_text(MODELS)
    models = '[[models]]\nname = "odd.py:extra_state"\ntrain = true\n'
    defense = '[[defenses]]\nname = "none"\nepochs = 1\nvalidate_every = 1\n'
    suite = write_suite(models=models, defenses=defense, attacks='[[attacks]]\nname = "fgsm"\n')
    answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu")
    assert answer.code == 0, answer.err


def test_the_hash_tells_every_part_of_a_state_apart():
    state = {"a": torch.ones(2), "b": {"x": [1, torch.zeros(1)]}, "c": (torch.int8, "text")}
    seen = {state_hash(state)}
    for path, value in (("a", torch.zeros(2)), ("b", {"x": [1, torch.ones(1)]}), ("c", ("text",))):
        seen.add(state_hash({**state, path: value}))
    scale = torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8)
    other = torch.quantize_per_tensor(torch.ones(2) * 2, 1.0, 0, torch.qint8)
    assert torch.equal(scale.int_repr(), other.int_repr())
    seen |= {state_hash({"a": scale}), state_hash({"a": other})}
    assert len(seen) == 6
    assert state_hash(state) == state_hash(copy.deepcopy(state))


def test_weights_that_are_not_there_yet_are_an_error_of_ours():
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(CellError, match=r"state 1\.\w+ cannot be read"):
        weights_hash(lazy)
    images, labels = torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(CellError, match="run it on an image first"):
        evaluate(lazy, images, labels, "fgsm")


def test_a_module_that_has_no_modes_is_left_in_the_one_it_has():
    class Exported(nn.Module):
        def train(self, mode=True):
            raise NotImplementedError

    around = nn.Sequential(nn.Dropout(), Exported(), nn.Dropout())
    evaluation_mode(around)
    assert not any(one.training for one in around.modules())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_exported_module_is_evaluated_like_the_one_that_it_was_made_from():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    images, labels = torch.rand(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64)
    batch = torch.export.Dim("batch")
    made = torch.export.export(plain, (images,), dynamic_shapes=({0: batch},)).module()
    curves = [evaluate(one, images, labels, "pgd").curve for one in (plain, made)]
    assert curves[0].equals(curves[1])
