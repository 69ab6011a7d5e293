"""Checkpoints that somebody made to do harm, or that are no checkpoints: one line each, no code."""

import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save, save_file

from quintain.bench.api import registry
from quintain.bench.api.errors import BadCheckpoint, BadParameter
from quintain.bench.training.load import open_ready

SPEC = {"name": "small-cnn"}
NOTES = "open('ran', 'w').close()\ndef f(*args, **more):\n    raise SystemExit('ran')\n"


class Code:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.fixture(scope="module")
def data():
    return registry.build("datasets", "digits").load("train")


@pytest.fixture
def state(data):
    made = open_ready(None, SPEC, data).state_dict()
    return {name: value.contiguous() for name, value in made.items()}


def torchs(held):
    def write(path, state):
        torch.save(held(state), path)

    return write


def with_metadata(text):
    def write(path, state):
        save_file(state, str(path), {"quintain": text})

    return write


def with_defense(spec):
    return with_metadata(json.dumps({"defense_spec": spec}))


def changed(name, change):
    return torchs(lambda state: state | {name: change(state[name])})


def raw(content):
    return lambda path, state: path.write_bytes(content)


def protocol_0(path, state):
    path.write_bytes(pickle.dumps(Code(), protocol=0))


def old_format(path, state):
    torch.save({"state_dict": Code()}, path, _use_new_zipfile_serialization=False)


def compressed(path, state):
    torch.save(state | {"conv1.bias": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as archive:
        held = [(one.filename, archive.read(one)) for one in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held:
            archive.writestr(name, content)


def truncated(path, state):
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-3000])


def truncated_safetensors(path, state):
    path.write_bytes(save(state)[:-7])


def swapped_offsets(path, state):
    header = {"conv1.bias": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)


def script(path, state):
    torch.save(state, path)
    with zipfile.ZipFile(path, "a") as archive:  # which makes it one of TorchScript's
        archive.writestr(f"{path.stem}/constants.pkl", b"")


DEEP = "[" * 100_000
NESTED = '{"name": "jpeg", "base": ' * 900 + '"none"' + "}" * 900
ENSEMBLE = {"name": "ensemble", "members": [SPEC, {"name": "notes.py:f"}]}
PROXY = {"name": "proxy", "architecture": ["notes.py:f"]}
EXPANDED = torch.zeros(1).expand(1 << 40)
WEIGHT = "conv1.weight"

HOSTILE = {
    # code in pickles, in every ending and format
    "code.pt": (torchs(lambda _: Code()), "if you trust its maker, export the weights: python -c"),
    "code.pth": (torchs(lambda _: {"state_dict": Code()}), "without running .*mkdir"),
    "code.pth.tar": (torchs(lambda state: state | {WEIGHT: Code()}), "without running"),
    "code.ckpt": (torchs(lambda state: {"state_dict": state, "hooks": Code()}), "without running"),
    "code.bin": (old_format, "without running"),
    "code.PT": (protocol_0, "cannot be read"),
    "code": (torchs(lambda _: [Code()]), "without running"),
    "code.safetensors": (torchs(lambda _: Code()), "cannot be read"),
    "whole.pt": (torchs(lambda _: torch.nn.Linear(2, 2)), "without running .*Linear"),
    "script.pt": (script, "without running .*TorchScript"),
    # code named in metadata
    "spec.safetensors": (with_defense({"name": "notes.py:f"}), "--plugin notes.py:f "),
    "text.safetensors": (with_defense("notes.py:f"), "--plugin notes.py:f "),
    "base.safetensors": (
        with_defense({"name": "bit-depth", "base": {"name": "jpeg", "base": "notes.py:f"}}),
        "'notes.py:f' is code",
    ),
    "members.safetensors": (with_defense(ENSEMBLE), "'notes.py:f' is code"),
    "gradient.safetensors": (
        with_defense({"name": "adversarial-training", "gradient": PROXY}), "'notes.py:f' is code"
    ),
    "library.safetensors": (
        with_defense({"name": "ensemble", "members": [
            {"name": "robustbench:Carmon2019Unlabeled", "folder": "."}]}),
        "'robustbench:Carmon2019Unlabeled' is code",
    ),
    "absolute.safetensors": (with_defense({"name": "/tmp/notes.py:f"}), "is code"),
    "shell.safetensors": (
        with_defense({"name": "a';touch ran;'.py:f\x1b]0;x\x07"}), r"unknown|cannot be used"
    ),
    "quoted.safetensors": (
        with_defense({"name": "a'; touch ran; '.py:f"}), r"--plugin 'a'\"'\"'; touch ran"
    ),
    "unknown.safetensors": (with_defense({"name": "mine"}), r"unknown defense 'mine'.*--plugin"),
    "spec-number.safetensors": (with_defense(7), "must be a name or a table"),
    "spec-parameter.safetensors": (
        with_defense({"name": "none", "epochs": "1" * 5000}), "its defense cannot be used"
    ),
    "long-name.safetensors": (with_defense({"name": "x" * 10**7}), "unknown defense 'xxx"),
    "many.safetensors": (
        with_defense({"name": "ensemble", "size": 10**9}), "size = 1000000000 must be"
    ),
    "deep-spec.safetensors": (
        with_metadata(f'{{"defense_spec": {NESTED}}}'),
        "cannot be",
    ),
    # metadata that is odd or large
    "no-json.safetensors": (with_metadata("{"), "cannot be read"),
    "deep-json.safetensors": (with_metadata(DEEP), "cannot be read"),
    "model.safetensors": (with_metadata('{"model": "resnet"}'), "is of the model resnet"),
    "escapes.safetensors": (
        with_metadata(json.dumps({"model": {"name": "\x1b[2J\u202e" + "x" * 10**7}})),
        r"is of the model \{'name': '\\+x1b\[2J",
    ),
    "hash.safetensors": (with_metadata('{"weights": [1]}'), "another hash"),
    # what is no checkpoint, or not a whole one
    "empty.pt": (raw(b""), "cannot be read"),
    "empty.safetensors": (raw(b""), "cannot be read"),
    "text.pt": (raw(b"hello\nworld\n" * 50), "cannot be read"),
    "zeros.ckpt": (raw(b"\0" * 5000), "cannot be read"),
    "zip.pth": (raw(b"PK\x05\x06" + b"\0" * 18), "cannot be read"),
    "torn.pt": (truncated, "cannot be read"),
    "torn.safetensors": (truncated_safetensors, "cannot be read"),
    "folder.pt": (lambda path, state: path.mkdir(), "is not a file"),
    "numbers.pt": (torchs(lambda _: {1: torch.zeros(2)}), "holds no state dict"),
    "texts.pt": (torchs(lambda _: {"state_dict": {"a": "b"}}), "holds no state dict"),
    # sizes and kinds of numbers
    "bomb.pth": (compressed, "is compressed"),
    "states.safetensors": (swapped_offsets, "cannot be read"),
    "expanded.pt": (changed("conv1.bias", lambda _: EXPANDED), "has shape"),
    "alike.pt": (changed(WEIGHT, lambda w: torch.zeros(1).expand(w.shape)), "states more numbers"),
    "complex.pt": (changed(WEIGHT, lambda w: w.to(torch.complex64)), "is torch.complex64"),
    "integers.pt": (changed(WEIGHT, lambda w: w.to(torch.int32)), "is torch.int32"),
    "sparse.pt": (changed(WEIGHT, lambda w: w.flatten(1).to_sparse()), "is not a plain tensor"),
    "meta.pt": (changed(WEIGHT, lambda w: w.to("meta")), "is not a plain tensor"),
    "nan.pt": (changed(WEIGHT, lambda w: w * torch.nan), "holds NaN"),
    "names.pt": (
        torchs(lambda state: state | {"\x1b[31m\n" * 999: torch.ones(1)}), r"holds \\x1b\[31m \\x1b"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_ends_in_one_line(name, tmp_path, data, state, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.py").write_text(NOTES)
    write, says = HOSTILE[name]
    write(tmp_path / name, state)
    with pytest.raises((BadCheckpoint, BadParameter), match=says) as caught:
        open_ready(tmp_path / name, SPEC, data)
    text = str(caught.value)
    assert len(text) < 4000
    assert text.isprintable()
    assert not (tmp_path / "ran").exists()


def test_one_line_on_the_terminal_too(tmp_path, quintain, monkeypatch, write_suite, state):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.py").write_text(NOTES)
    with_defense({"name": "notes.py:f"})(tmp_path / "net.safetensors", state)
    models = '[[models]]\nname = "small-cnn"\ncheckpoint = "net.safetensors"\n'
    for arguments in (
        ["run", write_suite(models=models, defenses=""), "--out", "out"],
        ["bench", "--model", "small-cnn", "--checkpoint", "net.safetensors", "--out", "out"],
    ):
        answer = quintain(*arguments, "--device", "cpu")
        assert answer.code == 2
        assert "'notes.py:f' is code, which no data may choose to run" in answer.error
        assert 'plugins = ["notes.py:f"]' in answer.error
        assert not (tmp_path / "ran").exists()


FACTORY = """
from dataclasses import dataclass
from torch import nn
from quintain.bench.api.defense import Trained

class Half(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) / 2

@dataclass(frozen=True)
class Mine:
    def fit(self, model, training):
        return Trained(Half(model))

    def wrap(self, model):
        return Half(model)
"""


@pytest.mark.parametrize("registered", [False, True])
def test_a_defense_of_ones_own_loads_where_the_user_names_it(
    registered, tmp_path, data, state, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, named, asked = FACTORY, "mine.py:Mine", "mine.py:Mine"
    if registered:
        decorated = 'from quintain.bench.api import registry\n@registry.defense("mine")\n@dataclass'
        code, named, asked = FACTORY.replace("@dataclass", decorated), "mine", "mine.py"
    (tmp_path / "mine.py").write_text(code)
    inner = {f"inner.{name}": value for name, value in state.items()}
    with_defense({"name": named})(tmp_path / "net.safetensors", inner)
    with registry.temporary():
        registry.load_named(asked, tmp_path)
        assert type(open_ready(tmp_path / "net.safetensors", SPEC, data)).__name__ == "Half"
    with pytest.raises(BadCheckpoint, match="--plugin"):
        open_ready(tmp_path / "net.safetensors", SPEC, data)
