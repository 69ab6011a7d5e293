"""What a user gets wrong, end to end: one line on stderr, status 2, and nothing written or lost."""

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from quintain.bench.report.summary import short_summary
from quintain.bench.store.checkpoints import read_about

DATASET = """
from dataclasses import dataclass
import torch
from quintain.bench.api import registry
from quintain.bench.datasets.in_memory import TensorImages
from quintain.bench.api.data import ImageData

@registry.dataset("own")
@dataclass(frozen=True)
class Own:
    fault: str = ""

    def load(self, split):
        if self.fault == "unreadable":
            open("/no/such/folder/images.bin")
        x = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        y = torch.arange(40) % 3
        names = ("a", "b", "c")
        if self.fault == split + " label":
            y[7] = 3
        if self.fault == split + " negative label":
            y[7] = -1
        if self.fault == split + " image":
            x[5, 0, 1, 1] = 1.5
        if self.fault == "bytes":
            x = x * 255
        if self.fault == "nan":
            x[3, 0, 0, 0] = float("nan")
        if self.fault == "probabilities":
            y = torch.nn.functional.one_hot(y, 3).float()
        if self.fault == "classes" and split == "test":
            names = ("a", "b", "x")
        return ImageData(TensorImages(x), y, names, tuple(x.shape[1:]))
"""

MODELS = """
from torch import nn
from quintain.bench.api import registry

@registry.model("own")
def own(inputs, *, fault: str = ""):
    if fault == "build":
        raise ValueError("cannot be\\nbuilt")
    layers = [nn.Flatten(), nn.Linear(256, 7 if fault == "classes" else 10)]
    if fault == "index":
        class Wrong(nn.Module):
            def forward(self, x):
                return x[:, 5]
        layers = [Wrong()]
    if fault == "tuple":
        class Wrong(nn.Module):
            def forward(self, x):
                return x, x
        layers = [Wrong()]
    return nn.Sequential(*layers)
"""


def attack(line, name="pgd"):
    return f'[[attacks]]\nname = "{name}"\n{line}\n'


def model(line="", name="resnet"):
    return f'[[models]]\nname = "{name}"\n{line}\n'


def own_data(fault):
    return {"plugins": '["own.py"]', "dataset": f'{{ name = "own", fault = "{fault}" }}'}


def own_model(fault):
    return {"plugins": '["models.py"]', "models": model(f'fault = "{fault}"', "own")}


MISTAKES = {
    "attack": ({"attacks": attack("", "pdg")}, "attacks[1]: unknown attack 'pdg'; did you mean 'p"),
    "model": ({"models": model("", "resnett")}, "models[1]: unknown model 'resnett'; did you mean"),
    "defense": (
        {"defenses": '[[defenses]]\nname = "non"\n'},
        "defenses[1]: unknown defense 'non'; did you mean 'none'?",
    ),
    "dataset": ({"dataset": '"digit"'}, "dataset: unknown dataset 'digit'; did you mean 'digits'?"),
    "malformed": ({"seed": "= 3"}, "tiny.toml: not valid TOML: "),
    "unknown key": ({"n_example": "3"}, "unknown key 'n_example'; did you mean 'n_examples'?"),
    "parameter": (
        {"attacks": attack("stepz = 3")},
        "attacks[1]: attack 'pgd' has no parameter 'stepz'; did you mean 'steps'?",
    ),
    "our key, misspelt": (
        {"attacks": attack("restart = 3")},
        "attack 'pgd' has no parameter 'restart'; did you mean 'restarts'?",
    ),
    "checkpoint, misspelt": (
        {"models": model('checkpont = "x"')},
        "model 'resnet' has no parameter 'checkpont'; did you mean 'checkpoint'?",
    ),
    "type": ({"attacks": attack('steps = "3"')}, "attack 'pgd': steps = '3' is not int"),
    "value": ({"attacks": attack("steps = 0")}, "attacks[1]: steps must be at least 1, not 0"),
    "nested": (
        {"attacks": attack('gradient = { name = "autograd", x = 1 }')},
        "gradient source 'autograd' has no parameter 'x'",
    ),
    "top type": ({"n_examples": '"24"'}, "n_examples: input should be a valid integer, not '24'"),
    "negative epsilon": ({"epsilons": "[-0.1]"}, "epsilon -0.1 must be positive"),
    "empty grid": ({"epsilons": "[]"}, "epsilons must hold at least one value"),
    "epsilon twice": ({"epsilons": '["1/4", 0.25]'}, "epsilons hold one value twice: 1/4 and 0.25"),
    "too many": ({"n_examples": "100000"}, "n_examples = 100000, but the test split has 445 image"),
    "no checkpoint": (
        {"models": model('checkpoint = "gone.safetensors"')},
        "gone.safetensors does not exist",
    ),
    "corrupt checkpoint": (
        {"models": model('checkpoint = "corrupt.safetensors"')},
        "corrupt.safetensors cannot be read",
    ),
    "other checkpoint": (
        {"models": model('checkpoint = "other.safetensors"')},
        "other.safetensors is of the model {'name': 'alexnet', 'width': 0.125}, not {'name': 'r",
    ),
    "image size": (
        {"dataset": '{ name = "digits", size = 8 }'},
        "models[1]: resnet: images of 8x8 are too small; it takes 16x16 or larger",
    ),
    "folder missing": (
        {"dataset": '{ name = "imagefolder", root = "/no/such/folder" }'},
        "dataset: image folder /no/such/folder does not exist",
    ),
    "folder not given": (
        {"dataset": '"imagefolder"'},
        "dataset: dataset 'imagefolder' needs the parameter 'root'",
    ),
    "folder unreadable": (
        own_data("unreadable"),
        "dataset 'own', train split: FileNotFoundError: ",
    ),
    "test label": (own_data("test label"), "label 3 at index 7 is out of range: there are 3 class"),
    "train label": (own_data("train label"), "label 3 at index 7 is out of range"),
    "negative label": (own_data("test negative label"), "label -1 at index 7 is out of range"),
    "test image": (own_data("test image"), "images must lie in [0, 1]"),
    "train image": (own_data("train image"), "images must lie in [0, 1]"),
    "bytes": (own_data("bytes"), "divide by 255"),
    "nan": (own_data("nan"), "images must be finite: image 3 holds nan"),
    "probabilities": (own_data("probabilities"), "must be classes (N,), not probabilities"),
    "classes": (own_data("classes"), "test split differ in image shape or classes"),
    "dataset parameter": (own_data('", other = "'), "dataset 'own' has no parameter 'other'"),
    "plugin missing": ({"plugins": '["none.py"]'}, "none.py does not exist"),
    "plugin broken": ({"plugins": '["broken.py"]'}, "broken.py: SyntaxError: "),
    "plugin empty": ({"plugins": '["empty.py"]'}, "empty.py registers nothing"),
    "plugin taken": ({"plugins": '["taken.py"]'}, "dataset 'digits' is defined twice: in quintain"),
    "plugin twice": ({"plugins": '["own.py", "again.py"]'}, "dataset 'own' is defined twice: in"),
    "model built": (own_model("build"), "models[1]: "),
    "model shape": (own_model("index"), "models[1]: 'own' cannot take 1x16x16 images: IndexError"),
    "model classes": (own_model("classes"), "returns logits of shape (2, 7) for 2 images of a dat"),
    "model tuple": (own_model("tuple"), "returns logits of shape tuple for 2 images"),
    "norm": ({"norm": '"Linfty"'}, "norm: input should be 'Linf', 'L2' or 'L1', not 'Linfty'"),
    "leaderboard": ({"leaderboard_epsilon": "0.5"}, "leaderboard_epsilon 0.5 is not one of epsilo"),
    "two names": (
        {"attacks": attack("") + attack("steps = 3")},
        "two attacks are called 'pgd': give one a label",
    ),
}


@pytest.fixture(scope="session")
def other_checkpoint(cache, tmp_path_factory):
    from quintain.bench.api import registry
    from quintain.bench.api.defense import InputSpec
    from quintain.bench.store.checkpoints import save_checkpoint

    spec = {"name": "alexnet", "width": 0.125}
    network = registry.bind("models", spec)(InputSpec((1, 16, 16), 10, (0.5,), (1.0,)))
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    save_checkpoint(path, network, {"model": spec})
    return path


@pytest.fixture
def bench(tmp_path, other_checkpoint):
    """A folder with good and bad files that suites refer to."""
    (tmp_path / "own.py").write_text(DATASET)
    (tmp_path / "again.py").write_text(DATASET + "\n")
    (tmp_path / "taken.py").write_text(DATASET.replace('dataset("own")', 'dataset("digits")'))
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "corrupt.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0rubbish!")
    shutil.copy(other_checkpoint, tmp_path)
    return tmp_path


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_a_suite_is_one_line_and_nothing_is_written(
    what, bench, write_suite, quintain, snapshot
):
    changes, says = MISTAKES[what]
    suite = write_suite(**changes)
    before = snapshot(bench)
    answer = quintain("run", suite, "--out", bench / "out", "--device", "cpu")
    assert answer.code == 2
    assert says in answer.error
    assert str(suite) in answer.error
    assert answer.out == ""
    assert snapshot(bench) == before
    assert not (bench / "out").exists()


@pytest.mark.parametrize("what", ["type", "folder unreadable", "corrupt checkpoint", "too many"])
def test_a_mistake_leaves_an_existing_run_as_it_was(
    what, bench, tiny_run, write_suite, quintain, snapshot
):
    shutil.copytree(tiny_run, bench / "out")
    before = snapshot(bench / "out")
    changes, says = MISTAKES[what]
    answer = quintain("run", write_suite(**changes), "--out", bench / "out", "--device", "cpu")
    assert answer.code == 2
    assert says in answer.error
    assert snapshot(bench / "out") == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "quikstart"], "no suite 'quikstart'.*; did you mean 'quickstart'"),
        (["run", "no/such/suite.toml"], "no suite 'no/such/suite.toml'"),
        (["run", "tiny.toml", "--device", "banana"], "device 'banana' cannot be used"),
        (["run", "tiny.toml", "--device", "meta"], "device 'meta' cannot be used"),
        (["run", "tiny.toml", "--device", "hpu"], "device 'hpu' cannot be used"),
        (["run", "tiny.toml", "--seed", "-1"], "'--seed'"),
        (["run", "tiny.toml", "--seed", "x"], "'--seed'"),
        (["run", "tiny.toml", "--sead", "1"], "No such option:? '?--sead.*--seed"),
        (["run", "tiny.toml", "more.toml"], "unexpected extra argument"),
        (["runn"], "No such command 'runn'"),
        ([], "Missing command"),
        (["new"], "Missing command"),
        (["list", "atacks"], "no kind 'atacks'; did you mean 'attacks'"),
        (["leaderboard"], "Missing argument 'DIRECTORIES"),
        (["leaderboard", "."], "is not a run directory: it has no manifest.json"),
        (["leaderboard", "gone"], "gone is not a run directory"),
        (["leaderboard", ".", "--format", "htm"], "no format 'htm'; did you mean 'html'"),
        (["leaderboard", ".", "--format", "x"], "no format 'x'; there are csv, markdown"),
        (["train"], "Missing option '--model'"),
        (["train", "--model", "resnt"], "unknown model 'resnt'; did you mean 'resnet'"),
        (["train", "--model", "resnet", "--defense", "x"], "unknown defense 'x'"),
        (["train", "--model", "resnet", "--norm", "L3"], "no norm 'L3'; did you mean 'L2'"),
        (["train", "--model", "resnet", "--epsilon", "-1"], "epsilon -1 must be positive"),
        (["train", "--model", "resnet", "--out", "net.pt"], "is a .safetensors file, not net.pt"),
        (["train", "--model", "resnet", "--set", "depth=8"], "expected PART.KEY=VALUE with PART"),
        (["train", "--model", "resnet", "--set", "model.dept=8"], "did you mean 'depth'"),
        (["train", "--model", "resnet", "--set", "model.depth=9"], "depth 9 is not one of"),
        (["train", "--model", "resnet", "--set", "model.depth=x"], "depth = 'x' is not int"),
        (["train", "--model", "resnet", "--set", "dataset.size=8"], "images of 8x8 are too small"),
        (["train", "--model", "resnet", "--set", "defense.epochs=0"], "epochs = 0 must be 1"),
        (["train", "--model", "resnet", "--set", "defense.schedule=cosin"], "you mean 'cosine'"),
        (["train", "--model", "resnet", "--set", "defense.shedule=step"], "you mean 'schedule'"),
        (["train", "--model", "resnet", "--set", "defense.precision=bf16"],
         "'bf16' is not one of float32, bfloat16, float16; did you mean"),
        (["train", "--model", "resnet", "--set", "defense.milestones=[30, 60]"],
         "must be rising, above 0 and below 1"),
        (["train", "--model", "resnet", "--set", "defense.ema=1"], "ema = 1.0 must be above 0"),
        (["train", "--model", "resnet", "--set", "defense.compile=yes"], "'yes' is not bool"),
        (["train", "--model", "resnet", "--set", "defense.colour=0.1", "--device", "cpu"],
         "colour = 0.1 is for images of 3 channels; these have 1"),
        (["train", "--model", "resnet", "--set", "defense.precision=float16", "--device", "cpu"],
         "precision = 'float16' is for CUDA devices; use 'bfloat16' on cpu"),
        (["train", "--model", "resnet", "--defense", "adversarial-training", "--device", "cpu"],
         "needs an epsilon, such as"),
        (["train", "--model", "resnet", "--log-dir", "own.py/logs", "--device", "cpu"],
         "--log-dir own.py/logs cannot be written: Not a directory"),
        (["train", "--model", "resnet", "--device", "banana"], "device 'banana' cannot be used"),
        (["train", "--model", "resnet", "--plugin", "gone.py"], "gone.py does not exist"),
        (["train", "--model", "resnet", "--plugin", "own.py", "--dataset", "own", "--set",
          "dataset.fault=train label"], "label 3 at index 7 is out of range"),
        (["train", "--model", "resnet", "--out", "own.py/x/net.safetensors"], "cannot be written"),
        (["train", "--model", "resnet", "--out", "folder.safetensors"], "cannot be written: Is"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_is_one_line_and_nothing_is_written(
    arguments, says, bench, write_suite, quintain, snapshot, monkeypatch
):
    write_suite()
    (bench / "folder.safetensors").mkdir()
    monkeypatch.chdir(bench)
    before = snapshot(bench), sorted(bench.rglob("*"))
    answer = quintain(*arguments)
    assert answer.code == 2
    assert re.search(says, answer.error)
    assert answer.out == ""
    assert (snapshot(bench), sorted(bench.rglob("*"))) == before


@pytest.mark.parametrize("where", ["file", "file/deeper/still"])
def test_an_output_folder_that_cannot_be_written_is_named(
    where, tmp_path, write_suite, quintain, snapshot
):
    suite = write_suite()
    (tmp_path / "file").write_text("a regular file")
    before = snapshot(tmp_path)
    answer = quintain("run", suite, "--out", tmp_path / where, "--device", "cpu")
    assert answer.code == 2
    assert f"{tmp_path / where} cannot be written" in answer.error
    assert snapshot(tmp_path) == before


def test_a_folder_of_somebody_else_is_left_alone(tmp_path, write_suite, quintain, snapshot):
    suite = write_suite()
    (tmp_path / "photos" / "store").mkdir(parents=True)
    (tmp_path / "photos" / "store" / "one.png").write_bytes(b"png")
    before = snapshot(tmp_path), sorted(tmp_path.rglob("*"))
    for more in ([], ["--update"]):
        answer = quintain("run", suite, "--out", tmp_path / "photos", "--device", "cpu", *more)
        assert answer.code == 2
        assert "is not a run directory and not empty (it holds store)" in answer.error
        assert (snapshot(tmp_path), sorted(tmp_path.rglob("*"))) == before


def test_a_suite_changed_under_a_run_is_refused_and_update_keeps_what_applies(
    tmp_path, tiny_run, write_suite, quintain, snapshot
):
    out = tmp_path / "out"
    shutil.copytree(tiny_run, out)
    before = snapshot(out)
    changed = write_suite(attacks=attack("", "fgsm") + attack("steps = 4"))
    answer = quintain("run", changed, "--out", out, "--device", "cpu")
    assert answer.code == 2
    assert "(attacks[2].steps: 3 before, 4 now)" in answer.error
    assert "--update" in answer.error
    assert snapshot(out) == before
    answer = quintain("run", write_suite(), "--out", out, "--device", "cpu", "--seed", "1")
    assert answer.code == 2
    assert "(seed: 0 before, 1 now)" in answer.error
    assert snapshot(out) == before
    write_suite(attacks=attack("", "fgsm") + attack("steps = 4"))
    answer = quintain("run", changed, "--out", out, "--device", "cpu", "--update")
    assert answer.code == 0
    assert "2 of 2 cells done (1 were there already)" in answer.out
    after = snapshot(out)
    kept = [name for name in before if "-fgsm-" in name]
    assert [Path(name).parent.name for name in sorted(kept)] == ["examples", "records"]
    assert all(after[name] == before[name] for name in kept)


def test_an_output_file_that_cannot_be_written_is_named(tmp_path, tiny_run, quintain):
    (tmp_path / "file").write_text("x")
    answer = quintain("leaderboard", tiny_run, "--output", tmp_path / "file" / "board.md")
    assert answer.code == 2
    assert "board.md cannot be written: File exists" in answer.error


def test_a_damaged_records_file_is_named_by_the_leaderboard(tmp_path, tiny_run, quintain):
    shutil.copytree(tiny_run, tmp_path / "out")
    one = sorted((tmp_path / "out" / "records").iterdir())[0]
    one.write_bytes(one.read_bytes()[:100])
    answer = quintain("leaderboard", tmp_path / "out")
    assert answer.code == 2
    assert f"{one.name} cannot be read" in answer.error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "tiny.toml", "--out", "out"], "tiny.toml: attacks[1]: unknown attack 'pdg'; did"),
        (["leaderboard", "out"], "out is not a run directory: it has no manifest.json"),
    ],
)
def test_a_process_ends_with_status_2_and_no_traceback(
    arguments, says, bench, write_suite, snapshot
):
    write_suite(attacks=attack("", "pdg"))
    before = snapshot(bench)
    script = "from quintain.bench.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=bench,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("quintain: error: ")
    assert says in last
    assert "Traceback" not in ran.stderr
    assert {k: v for k, v in snapshot(bench).items() if "__pycache__" not in k} == before


# --------------------------------------------------------------------------- what goes well


def test_help_and_version_end_with_0(quintain):
    for arguments in (["--help"], ["run", "-h"], ["--version"], ["new", "attack", "--help"]):
        answer = quintain(*arguments)
        assert (answer.code, answer.err) == (0, "")
        assert "quintain" in answer.out


def test_list_shows_every_kind_or_one(quintain):
    everything = quintain("list")
    assert everything.code == 0
    for kind in ("models", "attacks", "defenses", "datasets", "suites"):
        assert f"{kind}:\n" in everything.out
    assert re.search(r"^  pgd +Projected gradient descent", everything.out, re.MULTILINE)
    attacks = quintain("list", "attacks").out
    assert "pgd" in attacks
    assert "resnet" not in attacks
    assert re.search(r"quickstart +\S", quintain("list", "suites").out)


def test_a_run_prints_what_came_out_and_where_everything_is(
    tmp_path, tiny_run, write_suite, quintain
):
    shutil.copytree(tiny_run, tmp_path / "out")
    arguments = ["run", write_suite(), "--out", tmp_path / "out", "--device", "cpu"]
    answer = quintain(*arguments)
    assert answer.code == 0
    [row] = [line for line in answer.out.splitlines() if line.split()[:2] == ["1", "resnet"]]
    worst = pd.read_csv(tiny_run / "tradeoff.csv").query("attack == 'worst-case'")
    accuracies = [worst["clean_accuracy"].iloc[0], *worst["robust_accuracy"]]
    assert row.split()[2:] == ["none", *(f"{one:.2f}" for one in accuracies)]
    assert "2 of 2 cells done (2 were there already)" in answer.out
    assert str(tmp_path / "out" / "report.html") in answer.out
    verbose = quintain(*arguments, "--verbose")
    assert "| resnet  | none      | worst-case |" in verbose.out


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_summary_fits_the_window(width):
    epsilons = [f"{number}/255" for number in (1, 2, 4, 6, 8, 12, 16, 24, 32)]
    rows = [
        {"dataset": "d", "norm": "Linf", "n_examples": 10, "model": "googlenet", "defense": defense,
         "attack": "worst-case", "epsilon": epsilon, "clean_accuracy": 0.9, "robust_accuracy": 0.5,
         "flags": ""}
        for defense in ("none", "adversarial-training")
        for epsilon in epsilons
    ]  # fmt: skip
    board = [
        {"rank": 1, "model": "googlenet", "defense": one, "epsilon": "8/255", "clean_accuracy": 0.9}
        for one in ("none", "adversarial-training")
    ]
    text = short_summary(pd.DataFrame(rows), pd.DataFrame(board), width)
    table = text.split("\n\n")[1].splitlines()
    assert len(table) == 3
    assert max(map(len, table)) <= width
    assert "8/255*" in table[0]
    assert (table[0].count("/255") == len(epsilons)) == (width == 200)


def test_a_run_goes_into_runs_under_its_name_by_default(
    tmp_path, write_suite, quintain, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    answer = quintain("run", write_suite(name="my_suite.toml"), "--device", "cpu")
    assert answer.code == 0
    assert (tmp_path / "runs" / "my_suite" / "manifest.json").is_file()


@pytest.mark.parametrize("form", ["csv", "markdown", "latex", "html"])
def test_a_leaderboard_of_several_runs(form, tmp_path, tiny_run, write_suite, quintain):
    other = write_suite(name="other.toml", models=model('depth = 8\nwidth = 0.25\nlabel = "b"'))
    assert quintain("run", other, "--out", tmp_path / "other", "--device", "cpu").code == 0
    file = tmp_path / "board"
    arguments = ["leaderboard", tiny_run, tmp_path / "other", tiny_run, "--format", form]
    shown = quintain(*arguments)
    assert shown.code == 0
    wrote = quintain(*arguments, "--output", file)
    assert wrote.out == f"wrote {file}\n"
    assert file.read_text() == shown.out
    assert "resnet" in shown.out  # one row for each of two models of the same weights
    if form == "csv":
        board = pd.read_csv(io.StringIO(shown.out), dtype=str)
        assert board["model"].tolist() == ["b", "resnet"]
        assert board["rank"].tolist() == ["1", "1"]  # of the same weights
        assert board["weights_hash"].nunique() == 1


def test_a_leaderboard_of_one_run_is_the_runs_own(tiny_run, quintain):
    answer = quintain("leaderboard", tiny_run, "--format", "csv")
    assert answer.out == (tiny_run / "leaderboard.csv").read_text()


def test_a_trained_checkpoint_is_used_by_a_suite_as_it_is(
    tmp_path, cache, tiny_run, write_suite, quintain
):
    settings = {
        "model.depth": 8,
        "model.width": 0.25,
        "defense.epochs": 4,
        "defense.batch_size": 32,
        "defense.learning_rate": 0.1,
        "defense.augmentation": '"none"',
        "defense.validate_every": 4,
    }
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    path = tmp_path / "net.safetensors"
    made = quintain("train", "--model", "resnet", "--out", path, "--device", "cpu", *pairs)
    assert made.code == 0
    assert made.out.startswith(f"wrote {path}: epoch 4 of 4, clean accuracy ")
    about = read_about(path)
    assert about["model"] == {"name": "resnet", "depth": 8, "width": 0.25}
    (trained,) = json.loads((tiny_run / "manifest.json").read_text())["networks"]
    assert about["weights"] == trained["weights_hash"]  # the same recipe, data and seed

    lines = 'depth = 8\nwidth = 0.25\ncheckpoint = "net.safetensors"\ndefense = "mine"'
    suite = write_suite(models=model(lines), defenses="")
    answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu")
    assert answer.code == 0
    (network,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["networks"]
    assert (network["defense"], network["weights_hash"]) == ("mine", about["weights"])
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert board["weights_hash"].tolist() == [about["weights"]]
    theirs = pd.read_csv(tiny_run / "leaderboard.csv")
    for column in ("clean_accuracy", "robust_accuracy", "curve_area"):
        assert board[column].tolist() == theirs[column].tolist()


def test_the_default_checkpoint_is_named_for_what_it_is(tmp_path, quintain, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(DATASET)
    answer = quintain(
        "train", "--model", "resnet", "--set", "model.depth=8", "--set", "model.width=0.25",
        "--plugin", "own.py", "--dataset", "own", "--set", "defense.epochs=1", "--device", "cpu",
    )  # fmt: skip
    assert answer.code == 0
    assert Path("resnet-none.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("quintain ru", "plain,run"),
        ("quintain run tradeo", "plain,tradeoff"),
        ("quintain run mine.to", "file,mine.to"),
        ("quintain info apgd-d", "plain,apgd-dlr"),
        ("quintain study ense", "plain,ensembles"),
        ("quintain list attac", "plain,attacks"),
    ],
)
def test_the_shell_completes(words, expected):
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", "from quintain.bench.cli import main; main()"],
        env={**os.environ, "_QUINTAIN_COMPLETE": "bash_complete", **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split(), done.stderr, done.returncode) == ([expected], "", 0)


def test_lines_of_a_list_fit_the_terminal(quintain):
    command = [sys.executable, "-c", "from quintain.bench.cli import main; main()"]
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*command, "list", "losses"],
        env={**os.environ, "COLUMNS": "60"},
        stdout=theirs,
        check=False,
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode().splitlines()
    os.close(ours)
    whole = quintain("list", "losses").out.splitlines()  # a pipe gets whole lines
    assert done.returncode == 0
    assert len(shown) == len(whole) > 2
    assert max(map(len, shown)) <= 60 < max(map(len, whole))
    assert any(line.endswith("...") for line in shown)
