"""Checkpoints as other people write them: known keys, prefixes and endings, on a small network."""

import argparse

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from quintain.bench.api import registry
from quintain.bench.api.errors import BadCheckpoint
from quintain.bench.store.checkpoints import load_checkpoint, weights_hash
from quintain.bench.training.load import open_ready

COUNTER = "num_batches_tracked"


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2)
        )
        module(torch.rand(2, 1, 4, 4))
    return module.eval()


def prefixed(prefix, seed=0):
    return {f"{prefix}{name}": value for name, value in network(seed).state_dict().items()}


def without_counters():
    return {k: v for k, v in network().state_dict().items() if COUNTER not in k}


OPTIONS = argparse.Namespace(lr=0.1, arch="small", out=None)

FORMS = {
    "module.": ("net.pth", prefixed("module.")),
    "_orig_mod.": ("net.pth", prefixed("_orig_mod.")),
    "model.": ("net.pth", prefixed("model.")),
    "module._orig_mod.model.": ("net.pt", prefixed("module._orig_mod.model.")),
    "model.module.": ("net.pt", prefixed("model.module.")),
    "within": ("net.pth", {  # DataParallel or compile around a part alone
        name.replace("0.", "0.module.", 1) if name.startswith("0.") else name: value
        for name, value in network().state_dict().items()
    }),
    "state_dict, .pth.tar": ("net.pth.tar", {"epoch": 9, "state_dict": prefixed("module.")}),
    "net": ("net.pth", {"net": prefixed("module."), "acc": 91.2, "epoch": 199}),
    "model": ("net.pth", {"model": prefixed(""), "optimizer": {"state": {}}}),
    "model_state_dict": ("net.PT", {"model_state_dict": prefixed(""), "loss": 0.3}),
    "ema": ("net.PTH", {"ema": prefixed("module.")}),
    ".ckpt": ("net.ckpt", {"state_dict": prefixed("model."), "global_step": 7, "callbacks": {}}),
    ".bin": ("pytorch_model.bin", prefixed("")),
    "no counters": ("net.pth", without_counters()),
    "no ending": ("net", prefixed("")),
    "nested": ("net.pt", {"model": {"state_dict": prefixed("module.")}}),
    "options": ("net.pth", {"state_dict": prefixed(""), "args": OPTIONS}),
    "half": ("net.pth", {k: v.half() if v.is_floating_point() else v
                         for k, v in network().state_dict().items()}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_of_somebody_else_fills_the_network(form, tmp_path):
    name, held = FORMS[form]
    torch.save(held, tmp_path / name)
    module = network(seed=1)
    load_checkpoint(tmp_path / name, module)
    for key, value in network().state_dict().items():
        expected = value.half().float() if form == "half" and value.is_floating_point() else value
        if not (form == "no counters" and COUNTER in key):
            assert torch.equal(module.state_dict()[key], expected), key


@pytest.mark.parametrize("name", ["net.SafeTensors", "model.bin"])
def test_safetensors_are_known_by_name_in_any_case_or_by_how_they_begin(name, tmp_path):
    save_file(prefixed("model."), str(tmp_path / name))
    module = network(seed=1)
    load_checkpoint(tmp_path / name, module)
    assert weights_hash(module) == weights_hash(network())


def test_of_averaged_weights_and_others_the_averaged_are_taken_and_it_is_said(tmp_path, capsys):
    path = tmp_path / "net.pth"
    torch.save({"state_dict": prefixed("", 1), "state_dict_ema": prefixed("module.", 2)}, path)
    module = network()
    load_checkpoint(path, module)
    load_checkpoint(path, module)
    assert weights_hash(module) == weights_hash(network(2))
    assert capsys.readouterr().err.count("those under 'state_dict_ema' are taken") == 1


def test_averages_that_lack_the_buffers_are_passed_over(tmp_path):
    path = tmp_path / "net.pth"
    averaged = {name: value for name, value in prefixed("", 2).items() if "running" not in name}
    torch.save({"model": prefixed("", 1), "ema": averaged}, path)
    module = network()
    load_checkpoint(path, module)
    assert weights_hash(module) == weights_hash(network(1))


def test_a_prefix_that_the_network_has_itself_stays(tmp_path):
    inner = nn.ModuleDict({"module": network()})
    torch.save(prefixed("module."), tmp_path / "net.pth")
    module = nn.ModuleDict({"module": network(1)})
    load_checkpoint(tmp_path / "net.pth", module)
    assert weights_hash(module) == weights_hash(inner)
    torch.save(network().state_dict(), tmp_path / "bare.pth")  # and the file may lack it
    module = nn.ModuleDict({"module": network(1)})
    load_checkpoint(tmp_path / "bare.pth", module)
    assert weights_hash(module) == weights_hash(inner)


def test_names_that_do_not_fit_say_how_near_they_come(tmp_path):
    held = prefixed("module.")
    held["module.head.weight"] = held.pop("module.3.weight")
    torch.save({"state_dict": held}, tmp_path / "net.pth")
    with pytest.raises(
        BadCheckpoint,
        match=r"another network: it lacks 3\.weight, it also holds module\.head\.weight "
        r"\(7 of 8 names match\)",
    ):
        load_checkpoint(tmp_path / "net.pth", network())


def test_the_datas_normalisation_need_not_be_in_the_file(tmp_path):
    data = registry.build("datasets", "digits").load("train")
    spec = {"name": "small-cnn"}
    first = open_ready(None, spec, data)
    names = {f"module.{k}": v + 0.5 for k, v in first.state_dict().items() if "normalise" not in k}
    torch.save({"state_dict": names}, tmp_path / "net.pth.tar")
    opened = open_ready(tmp_path / "net.pth.tar", spec, data).state_dict()
    for name, value in first.state_dict().items():
        assert torch.equal(opened[name], value + 0.5 * ("normalise" not in name))
