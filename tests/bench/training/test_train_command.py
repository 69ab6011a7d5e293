"""`quintain train`: killed and gone on with, on a full disk, and what it leaves behind."""

import json
import re
import resource
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

from quintain.bench.store.checkpoints import read_about
from quintain.bench.training import networks
from quintain.bench.training import snapshot as partial

MODEL = ["--model", "small-cnn", "--set", "model.width=0.1"]
TRAIN = ["train", *MODEL, "--device", "cpu", "--set", "defense.batch_size=64"]
ADVERSARY = ["--defense", "adversarial-training", "--epsilon", "0.05",
             "--set", "defense.steps=1", "--set", "defense.validation_steps=1"]  # fmt: skip
# Keeps its state after every step, and lets others see in what process it is.
PLUGIN = """
from quintain.bench.training import snapshot as partial
from quintain.bench.api import registry
from quintain.attacks.white_box.pgd import PGD
partial.EVERY, partial._SHARE = {every}, 0.0
@registry.attack("unused")
class Unused(PGD):
    pass
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plugin file that makes the state be kept all the time; undone after the test."""
    for name in ("EVERY", "_SHARE"):
        monkeypatch.setattr(partial, name, getattr(partial, name))
    path = tmp_path / "often.py"
    path.write_text(PLUGIN.format(every=0.0))
    return ["--plugin", path]


def wait(ready):
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def weights(path):
    return read_about(path)["weights"]


@pytest.mark.parametrize("more", [["--set", "defense.ema=0.9"], ADVERSARY])
def test_killed_it_goes_on_and_ends_as_if_it_had_not_been(
    more, tmp_path, forge, quintain, plugin, snapshot
):
    command = [*TRAIN, *more, "--set", "defense.epochs=3", "--out"]
    out, undisturbed = tmp_path / "net.safetensors", tmp_path / "undisturbed.safetensors"
    assert quintain(*command, undisturbed).code == 0
    state = tmp_path / "net.partial"
    for _ in range(2):
        before = state.stat().st_ino if state.exists() else 0
        forge.start(*command, out, *plugin)
        # the file is a new one each time that it is written
        wait(lambda before=before: state.exists() and state.stat().st_ino != before)
        time.sleep(0.05)
        forge.kill()
        assert forge.ending() == -9
        assert not out.exists()
    answer = quintain(*command, out)
    assert answer.code == 0
    assert re.search(
        r"quintain: training goes on in epoch \d of 3, from .*net\.partial", answer.err
    )
    assert weights(out) == weights(undisturbed)
    assert read_about(out)["history"] == read_about(undisturbed)["history"]
    assert {one.name for one in tmp_path.iterdir()} == {
        "net.safetensors", "undisturbed.safetensors", "often.py",
    } | ({"__pycache__"} if (tmp_path / "__pycache__").exists() else set())  # fmt: skip


@pytest.fixture
def interrupted(tmp_path, forge, plugin):
    """A training that was killed: its command, up to --out, and where its state is."""
    command = [*TRAIN, "--set", "defense.epochs=2"]
    state = tmp_path / "net.partial"
    forge.start(*command, "--out", tmp_path / "net.safetensors", *plugin)
    wait(state.exists)
    forge.kill()
    forge.ending()
    return command, state


def test_another_recipe_restarts_and_so_does_fresh(interrupted, tmp_path, quintain):
    command, state = interrupted
    content = state.read_bytes()
    out = tmp_path / "net.safetensors"
    other = quintain(*command, "--out", out, "--seed", "1")
    assert f"quintain: {state} is of another training: this one restarts" in other.err
    assert other.code == 0
    state.write_bytes(content)
    fresh = quintain(*command, "--out", out, "--fresh")
    assert "goes on" not in fresh.err
    assert not state.exists()
    state.write_bytes(content[:-1])
    damaged = quintain(*command, "--out", out)
    assert f"quintain: {state} is damaged: training restarts" in damaged.err
    assert not state.exists()


def test_a_diverging_training_leaves_the_last_good_state_and_network(tmp_path, quintain, plugin):
    out = tmp_path / "net.safetensors"
    assert quintain(*TRAIN, "--set", "defense.epochs=1", "--out", out).code == 0
    before = weights(out)
    answer = quintain(
        *TRAIN, "--set", "defense.epochs=1", "--set", "defense.learning_rate=1e30", "--out", out,
        *plugin,
    )  # fmt: skip
    assert answer.code == 2
    assert answer.error.startswith("training diverged: loss is ")
    assert weights(out) == before


@contextmanager
def small_files(size):
    """Files may not grow beyond a size, in bytes, for the while."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_leaves_the_older_checkpoint_and_the_last_state(
    tmp_path, quintain, plugin
):
    """The limit on files' sizes stands for a full disk: writes fail in the same place."""
    out, state = tmp_path / "net.safetensors", tmp_path / "net.partial"
    train = [*TRAIN, "--set", "defense.epochs=1", "--out", out]
    assert quintain(*train).code == 0
    before = out.read_bytes()
    with small_files(10_000):
        answer = quintain(*train, "--seed", "1", *plugin)
    assert answer.code == 2
    assert answer.out == ""
    lines = answer.err.splitlines()
    assert lines == [
        f"quintain: {state} cannot be written: File too large; "
        "training goes on, and a killed one from the last state that was kept",
        f"quintain: error: {out} cannot be written: File too large",
    ]
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_cache_that_fills_up_is_one_line_that_says_what_to_do(tmp_path, quintain, write_suite):
    suite = write_suite(n_examples="4")

    def full(path, module, about):
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))
        patch.setattr(networks, "save_checkpoint", full)
        answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu")
    assert answer.code == 1
    line = next(line for line in answer.err.splitlines() if "FAILED" in line)
    assert "the trained network cannot be kept in" in line
    assert line.endswith("No space left on device; make room or set QUINTAIN_CACHE, and run again")


def test_the_figures_are_those_of_the_epoch_that_was_kept(tmp_path, quintain):
    out = tmp_path / "net.safetensors"
    answer = quintain(
        *TRAIN, *ADVERSARY, "--set", "defense.epochs=3", "--set", "defense.learning_rate=0.5",
        "--out", out,
    )  # fmt: skip
    about = read_about(out)
    row = about["history"][about["epoch"] - 1]
    assert row["robust_validation_accuracy"] == max(
        one["robust_validation_accuracy"] for one in about["history"]
    )
    assert answer.out.startswith(
        f"wrote {out}: epoch {about['epoch']} of 3, "
        f"clean accuracy {row['validation_accuracy']:.3f}, "
        f"robust accuracy {row['robust_validation_accuracy']:.3f}, "
        f"training loss {row['loss']:.3f}"
    )
    assert about["defense_spec"] == {
        "name": "adversarial-training",
        "steps": 1, "validation_steps": 1, "epochs": 3, "batch_size": 64, "learning_rate": 0.5,
    }  # fmt: skip


def test_of_an_ensemble_it_is_said_how_long_it_was_trained_in_all(tmp_path, quintain):
    out = tmp_path / "net.safetensors"
    base = "defense.base={name = 'none', epochs = 2, batch_size = 64}"
    ensemble = ["--defense", "ensemble", "--set", "defense.size=2", "--set", base]
    answer = quintain("train", *MODEL, "--device", "cpu", *ensemble, "--out", out)
    assert answer.out == f"wrote {out}: an ensemble, 4 epochs of training in all\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_curves_can_be_read_by_tensorboard(tmp_path, quintain):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, logs = tmp_path / "net.safetensors", tmp_path / "logs"
    answer = quintain(
        *TRAIN, *ADVERSARY, "--set", "defense.epochs=2", "--out", out, "--log-dir", logs
    )
    assert answer.code == 0, answer.err
    read = EventAccumulator(str(logs)).Reload()
    history = read_about(out)["history"]
    for tag, name in {
        "loss/train": "loss",
        "loss/validation": "validation_loss",
        "accuracy/train": "train_accuracy",
        "accuracy/robust_validation": "robust_validation_accuracy",
        "learning_rate": "learning_rate",
    }.items():
        events = read.Scalars(tag)
        assert [one.step for one in events] == [1, 2]
        assert [one.value for one in events] == pytest.approx([row[name] for row in history])


def test_without_tensorboard_it_is_said_how_to_get_it(tmp_path, quintain, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    answer = quintain(*TRAIN, "--out", tmp_path / "net.safetensors", "--log-dir", tmp_path / "logs")
    assert answer.code == 2
    assert answer.error == "--log-dir needs TensorBoard: pip install 'quintain[tensorboard]'"
    assert list(tmp_path.iterdir()) == []


def test_a_wrapped_network_that_was_killed_goes_on_too(tmp_path, forge, quintain, plugin):
    """A defense that obtains its network keeps that one's state under a name of its own."""
    (tmp_path / "around.py").write_text(
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "from quintain.bench.api import registry\n"
        "from quintain.bench.api.defense import Defense, Trained\n"
        "from quintain.defenses.none import Undefended\n"
        "@registry.defense('around')\n"
        "@dataclass(frozen=True)\n"
        "class Around:\n"
        "    base: Defense = Undefended()\n"
        "    def wrap(self, model):\n        return nn.Sequential(nn.Identity(), model)\n"
        "    def fit(self, model, training):\n"
        "        made = training.obtain(self.base)\n"
        "        return Trained(self.wrap(made.model), made.history, made.flags, made.epoch)\n"
    )
    base = "{ name = 'none', epochs = 2, batch_size = 64 }"
    command = [
        "train", *MODEL, "--device", "cpu", "--plugin", tmp_path / "around.py",
        "--defense", "around", "--set", f"defense.base={base}", "--out",
    ]  # fmt: skip
    out, undisturbed = tmp_path / "net.safetensors", tmp_path / "undisturbed.safetensors"
    assert quintain(*command, undisturbed).code == 0
    forge.start(*command, out, *plugin)
    wait(lambda: list(tmp_path.glob("net.*.partial")))
    forge.kill()
    forge.ending()
    answer = quintain(*command, out)
    assert "training goes on in epoch " in answer.err
    assert weights(out) == weights(undisturbed)
    assert not list(tmp_path.glob("*.partial*"))


def test_a_suites_training_that_was_killed_goes_on(
    tmp_path, forge, quintain, plugin, write_suite, tables
):
    defense = '[[defenses]]\nname = "none"\nepochs = 2\nbatch_size = 64\nema = 0.9\n'
    models = '[[models]]\nname = "small-cnn"\nwidth = 0.1\n'
    attacks = '[[attacks]]\nname = "fgsm"\n'
    suite = write_suite(
        models=models, defenses=defense, attacks=attacks, plugins='["often.py"]', n_examples="8"
    )
    cache = tmp_path / "cold"
    forge.environment["QUINTAIN_CACHE"] = str(cache)
    try:
        forge.start("run", suite, "--out", tmp_path / "out", "--device", "cpu")
        wait(lambda: list((cache / "networks").glob("*.partial")))
        forge.kill()
        assert forge.ending() == -9
    finally:
        del forge.environment["QUINTAIN_CACHE"]
    assert not list((cache / "networks").glob("*.safetensors"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUINTAIN_CACHE", str(cache))
        answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu")
    assert "quintain: training goes on in epoch " in answer.err
    assert not list((cache / "networks").glob("*.partial*"))
    assert quintain("run", suite, "--out", tmp_path / "other", "--device", "cpu").code == 0
    assert tables(tmp_path / "out") == tables(tmp_path / "other")
    hashes = [
        json.loads((tmp_path / name / "manifest.json").read_text())["networks"][0]["weights_hash"]
        for name in ("out", "other")
    ]
    assert hashes[0] == hashes[1]


def test_training_begins_with_the_initial_weights(tmp_path, quintain):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert quintain(*TRAIN, "--set", "defense.epochs=1", "--out", first).code == 0
    gently = ["--set", "defense.epochs=1", "--set", "defense.learning_rate=1e-9"]
    answer = quintain(*TRAIN, *gently, "--initial", first, "--seed", "1", "--out", second)
    assert answer.code == 0
    before, after = load_file(first), load_file(second)
    learned = [name for name in before if before[name].ndim > 1]
    assert learned
    for name in learned:
        assert torch.allclose(after[name], before[name], atol=1e-4), name


def test_initial_weights_of_another_network_are_refused_before_any_work(tmp_path, quintain):
    first = tmp_path / "first.safetensors"
    assert quintain(*TRAIN, "--set", "defense.epochs=1", "--out", first).code == 0
    other = ["train", "--model", "resnet", "--set", "model.depth=8", "--device", "cpu"]
    out = tmp_path / "second.safetensors"
    for initial, said in ((first, "another network"), (tmp_path / "none.safetensors", "no file")):
        answer = quintain(*other, "--initial", initial, "--out", out)
        assert answer.code == 2
        assert initial.name in answer.error, said
        assert not out.exists()
        assert not out.with_suffix(".partial").exists()
