"""The state of an unfinished training, in a file."""

import errno
import os

import pytest
import torch

from quintain.bench.training import snapshot
from quintain.bench.training.snapshot import TrainingSnapshot

STATE = {
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)},
    "random": torch.Generator().manual_seed(1).get_state(),
    "history": [{"loss": 0.5, "epoch": 1}],
    "score": (float("-inf"), 2.0),
    "nothing": None,
}


@pytest.fixture
def said():
    return []


@pytest.fixture
def keeper(tmp_path, said):
    def make(identity="one", name="net.partial"):
        return TrainingSnapshot(tmp_path / name, identity, said.append)

    return make


def kept(keeper, *args):
    one = keeper(*args)
    assert one.recall() is None
    one.keep(STATE, "epoch 2 of 5")
    return one


def test_what_is_kept_comes_back_to_the_bit(keeper, said, tmp_path):
    kept(keeper)
    found = keeper().recall()
    assert torch.equal(found["weights"]["a"], STATE["weights"]["a"])
    assert torch.equal(found["random"], STATE["random"])
    assert {key: found[key] for key in ("history", "score", "nothing")} == {
        key: STATE[key] for key in ("history", "score", "nothing")
    }
    assert said == [f"training goes on in epoch 2 of 5, from {tmp_path / 'net.partial'}"]


@pytest.mark.parametrize("damage", ["half", "empty", "flip", "rubbish"])
def test_a_damaged_file_is_said_to_be_and_training_restarts(damage, keeper, said, tmp_path):
    kept(keeper)
    path = tmp_path / "net.partial"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    damaged = {
        "half": content[: len(content) // 2], "empty": b"", "flip": content, "rubbish": b"rubbish!"
    }  # fmt: skip
    path.write_bytes(damaged[damage])
    assert keeper().recall() is None
    assert said == [f"{path} is damaged: training restarts"]


def test_the_state_of_another_training_is_not_gone_on_with(keeper, said, tmp_path, monkeypatch):
    kept(keeper, "one")
    line = f"{tmp_path / 'net.partial'} is of another training: this one restarts"
    assert keeper("other").recall() is None
    monkeypatch.setattr(snapshot, "_FORMAT", 2)
    assert keeper("one").recall() is None
    assert said == [line, line]


def test_each_run_of_one_fit_has_a_file_of_its_own(keeper, tmp_path):
    first = keeper()
    for number in (1, 2, 3):
        assert first.recall() is None
        first.keep({"number": number}, "epoch 1 of 1")
    (tmp_path / "net.partial-old").write_text("somebody else's")
    again = keeper()
    assert [again.recall()["number"] for _ in range(3)] == [1, 2, 3]
    again.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["net.partial-old"]


def test_states_are_kept_after_a_while_and_seldom_when_it_takes_long(keeper, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(snapshot.time, "monotonic", lambda: now[0])
    one = keeper()
    one.recall()
    assert not one.due()
    now[0] += snapshot.EVERY
    assert one.due()

    def slow(path, content):
        now[0] += 2.0

    monkeypatch.setattr(snapshot, "_write", slow)
    one.keep(STATE, "epoch 1 of 1")
    now[0] += 99.0
    assert not one.due()
    now[0] += 1.0
    assert one.due()


def test_a_full_disk_is_one_line_and_the_last_state_survives(keeper, said, tmp_path, monkeypatch):
    one = kept(keeper)
    before = (tmp_path / "net.partial").read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("quintain.bench.store.atomic.os.fsync", full)
        one.keep({"other": 1}, "epoch 3 of 5")
        one.keep({"other": 2}, "epoch 4 of 5")
    assert [path.name for path in tmp_path.iterdir()] == ["net.partial"]
    assert (tmp_path / "net.partial").read_bytes() == before
    assert said == [
        f"{tmp_path / 'net.partial'} cannot be written: No space left on device; "
        "training goes on, and a killed one from the last state that was kept"
    ]
    one.keep({"other": 3}, "epoch 5 of 5")
    assert keeper().recall() == {"other": 3}


def test_what_a_kill_left_is_taken_away_too_and_nothing_else(tmp_path):
    left = [".net.partial.17.tmp", ".net.partial-2.17.tmp", "net.partial", "net.partial-2"]
    mine = [".net.partial.mine.tmp", ".other.partial.17.tmp", "net.partial.txt"]
    for name in left + mine:
        (tmp_path / name).touch()
    TrainingSnapshot(tmp_path / "net.partial", "this", print).discard()
    assert {one.name for one in tmp_path.iterdir()} == {*mine}
