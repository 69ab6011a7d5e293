import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from quintain.bench.api.errors import BadCheckpoint
from quintain.bench.store.checkpoints import (
    load_checkpoint,
    read_about,
    save_checkpoint,
    weights_hash,
)


def network(width=4, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))
        module[1].running_mean.normal_()
    return module


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, network(), {"model": {"name": "net", "width": 4}, "epoch": 3})
    return path


def test_weights_and_buffers_come_back_bit_for_bit(saved):
    again = network(seed=1)
    assert weights_hash(again) != weights_hash(network())
    about = load_checkpoint(saved, again)
    assert about.pop("weights") == weights_hash(network())
    assert about == {"model": {"name": "net", "width": 4}, "epoch": 3}
    assert weights_hash(again) == weights_hash(network())
    for one, other in zip(
        again.state_dict().values(), network().state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype


def test_a_hash_names_every_bit_shape_and_name():
    base = weights_hash(network())
    assert weights_hash(network()) == base
    changed = network()
    with torch.no_grad():
        changed[1].running_var[2] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    assert weights_hash(changed) != base
    assert weights_hash(network().double()) != base
    flat, tall = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        flat.weight.zero_()
        tall.weight.zero_()
    assert weights_hash(flat) != weights_hash(tall)
    assert weights_hash(nn.Sequential(flat)) != weights_hash(flat)


def test_tied_and_transposed_weights_can_be_saved(tmp_path):
    module = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    module[1].weight = module[0].weight
    save_checkpoint(tmp_path / "tied.safetensors", module, {})
    module[0].weight.data = module[0].weight.data.t()
    save_checkpoint(tmp_path / "turned.safetensors", module, {})
    again = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    load_checkpoint(tmp_path / "turned.safetensors", again)
    assert torch.equal(again[0].weight, module[0].weight)


def test_one_that_is_missing_is_named(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"gone\.safetensors does not exist"):
        read_about(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_damaged_one_is_refused_and_changes_nothing(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    module = network(seed=1)
    before = weights_hash(module)
    with pytest.raises(BadCheckpoint, match=r"one\.safetensors cannot be read"):
        load_checkpoint(saved, module)
    assert weights_hash(module) == before


def test_a_bit_that_flips_among_the_weights_is_noticed(saved):
    content = bytearray(saved.read_bytes())
    content[-2] ^= 1
    saved.write_bytes(content)
    module = network(seed=1)
    before = weights_hash(module)
    with pytest.raises(BadCheckpoint, match="damaged"):
        load_checkpoint(saved, module)
    assert weights_hash(module) == before


def test_a_file_of_another_kind_is_refused(tmp_path):
    torch.save(network().state_dict(), tmp_path / "pickle.safetensors")
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        load_checkpoint(tmp_path / "pickle.safetensors", network())


def test_one_of_another_network_is_refused_by_what_differs(saved):
    module = network(width=8)
    with pytest.raises(BadCheckpoint, match=r"0\.bias has shape \(4,\), the network needs \(8,\)"):
        load_checkpoint(saved, module)
    with pytest.raises(BadCheckpoint, match=r"lacks 2\.weight|lacks 2\.bias"):
        load_checkpoint(saved, nn.Sequential(*network(), nn.Linear(2, 2)))
    with pytest.raises(BadCheckpoint, match=r"is for another network: it also holds 1\."):
        load_checkpoint(saved, nn.Sequential(network()[0]))


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"quintain": "[1]"}])
def test_one_of_another_maker_can_be_used(tmp_path, metadata):
    path = tmp_path / "theirs.safetensors"
    save_file(dict(network().state_dict()), str(path), metadata)
    module = network(seed=1)
    assert load_checkpoint(path, module) == {}
    assert weights_hash(module) == weights_hash(network())


def test_metadata_that_is_not_json_is_refused(tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_file(dict(network().state_dict()), str(path), {"quintain": "{"})
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        read_about(path)


def test_a_failure_to_write_keeps_the_last_good_one(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(saved, network(seed=1), {})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("shape", ["plain", "state_dict", "model", "parallel"])
def test_torchs_own_files_can_be_used(tmp_path, shape):
    state = network().state_dict()
    if shape == "parallel":
        state = {f"module.{name}": value for name, value in state.items()}
    path = tmp_path / "theirs.pth"
    torch.save({shape: state, "epoch": 3} if shape in ("state_dict", "model") else state, path)
    module = network(seed=1)
    assert load_checkpoint(path, module) == read_about(path) == {}
    assert weights_hash(module) == weights_hash(network())


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_no_code_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Bomb()}, "bad.pt")
    with pytest.raises(BadCheckpoint, match=r"bad\.pt cannot be read"):
        load_checkpoint(tmp_path / "bad.pt", network())
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("held", [[1, 2], {"state_dict": {"a": 3}}, 7])
def test_a_file_without_a_state_dict_is_refused(tmp_path, held):
    torch.save(held, tmp_path / "bad.pt")
    with pytest.raises(BadCheckpoint, match="holds no state dict"):
        load_checkpoint(tmp_path / "bad.pt", network())


def test_torchs_file_of_another_network_is_refused(tmp_path):
    torch.save(network(width=8).state_dict(), tmp_path / "other.pt")
    with pytest.raises(BadCheckpoint, match=r"other\.pt: 0\.bias has shape \(8,\)"):
        load_checkpoint(tmp_path / "other.pt", network())
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(BadCheckpoint, match=r"torn\.pt cannot be read"):
        load_checkpoint(tmp_path / "torn.pt", network())
