import json
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from quintain.bench.report.tables import LEADERBOARD_COLUMNS, TRADEOFF_COLUMNS
from quintain.bench.store.records import read_cell
from quintain.bench.store.run_directory import RunDirectory
from quintain.bench.suite import manifest as run_manifest

PLUGIN = """
import os
from dataclasses import dataclass, replace
from quintain.attacks.white_box.pgd import PGD
from quintain.bench.api import registry

@registry.attack("raises")
@dataclass(frozen=True)
class Raises(PGD):
    steps: int = 3

    def step(self, problem, state):
        if os.environ.get("QUINTAIN_TEST_FAULT") and (problem.step == 1).any():
            raise RuntimeError("something\\nbroke")
        return super().step(problem, state)

@registry.attack("nan")
@dataclass(frozen=True)
class NaN(PGD):
    steps: int = 2

    def step(self, problem, state):
        return replace(state, x_adv=state.x_adv * float("nan"))

@registry.attack("shapeless")
@dataclass(frozen=True)
class Shapeless(PGD):
    steps: int = 1

    def step(self, problem, state):
        return replace(state, x_adv=state.x_adv[:, :, 1:])
"""

NAN_MODEL = """
import torch
from torch import nn
from quintain.bench.api import registry

@registry.model("diverges")
def diverges(inputs):
    class Diverges(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(256, inputs.n_classes)
        def forward(self, x):
            logits = self.layer(x.flatten(1))
            return logits / 0.0 * 0.0 if self.training else logits
    return Diverges()
"""

THREE = """
[[attacks]]
name = "fgsm"
[[attacks]]
name = "pgd"
steps = 3
restarts = 2
[[attacks]]
name = "pgd-finite-differences"
steps = 2
gradient = { name = "finite-differences", coordinates = 4 }
"""


def attacks(*names):
    return "".join(f'[[attacks]]\nname = "{name}"\nsteps = 3\n' for name in names)


def manifest(out):
    return json.loads((out / "manifest.json").read_text())


def table(out, name="tradeoff"):
    return pd.read_csv(out / f"{name}.csv", dtype=str, keep_default_na=False)


def test_a_run_directory_holds_what_was_promised(tiny_run):
    names = {one.name for one in tiny_run.iterdir()} - {".lock"}
    tables = {"tradeoff.csv", "leaderboard.csv", "queries.csv"}
    shown = {"report.html", "quintain.log"}
    assert names == {"manifest.json", "suite.toml", "records", "examples", *shown, *tables}
    assert (tiny_run / "suite.toml").read_text() == (tiny_run.parent / "tiny.toml").read_text()
    assert list(table(tiny_run).columns) == TRADEOFF_COLUMNS
    assert list(table(tiny_run, "leaderboard").columns) == LEADERBOARD_COLUMNS
    assert len(list((tiny_run / "records").iterdir())) == 2


def test_epsilons_are_shown_as_they_were_written_everywhere(tiny_run):
    ordered = ["0.031", "8/255", "0.10", "0.25"]
    assert table(tiny_run)["epsilon"].tolist() == ordered * 3
    assert table(tiny_run, "leaderboard")["epsilon"].tolist() == ["0.10"]
    assert manifest(tiny_run)["suite"]["epsilons"] == ordered
    for path in (tiny_run / "records").iterdir():
        cell = read_cell(path)
        assert cell.about["epsilons"] == ordered
        assert cell.about["epsilon_values"] == [0.031, 8 / 255, 0.1, 0.25]
        assert set(cell.records["smallest_epsilon"]) <= {"", *ordered}


def test_the_tables_follow_from_the_records(tiny_run):
    shown = table(tiny_run).set_index(["attack", "epsilon"])
    broken = {}
    for path in (tiny_run / "records").iterdir():
        cell = read_cell(path)
        records = cell.records.sort_values("index")
        right = (records["clean_prediction"] == records["label"]).to_numpy()
        broken[cell.about["attack"]] = np.array(records["broken"].tolist())
        assert records["under_attack"].tolist() == right.tolist()
        assert right.mean() > 0.8  # else this test says little
    broken["worst-case"] = broken["fgsm"] | broken["pgd"]
    for attack, found in broken.items():
        for point, epsilon in enumerate(["0.031", "8/255", "0.10", "0.25"]):
            robust = float(shown.loc[(attack, epsilon), "robust_accuracy"])
            assert robust == (right & ~found[:, point]).mean()
            assert int(shown.loc[(attack, epsilon), "verified"]) == found[:, point].sum()
    assert broken["worst-case"].any()
    assert not broken["worst-case"][right].all()


def test_the_manifest_says_what_was_run_and_with_what(tiny_run):
    import torch

    about = manifest(tiny_run)
    assert about["software"]["torch"] == torch.__version__
    assert {"python", "quintain", "numpy", "scipy", "scikit-learn"} <= set(about["software"])
    assert about["hardware"]["device"] == "cpu"
    assert about["suite"]["attacks"][1] == {
        "name": "pgd",
        "label": "",
        "steps": 3,
        "restarts": 1,
        "query_budget": None,
        "eot_samples": None,
        "search": None,
    }
    assert about["suite"]["search"] == "bracket"  # a default, resolved
    assert len(about["indices"]) == 24
    assert about["began"] <= about["finished"]
    (network,) = about["networks"]
    board = table(tiny_run, "leaderboard")
    assert board["weights_hash"].tolist() == [network["weights_hash"]]
    assert board["parameters"].tolist() == [str(network["parameters"])]
    assert network["history"][-1]["epoch"] == 4
    assert [one["status"] for one in about["cells"]] == ["done", "done"]
    for one in about["cells"]:
        cell = read_cell(tiny_run / one["file"])
        assert cell.about["key"] == one["key"]
        assert cell.about["weights_hash"] == network["weights_hash"]
        assert sorted(cell.records["index"]) == about["indices"]


def test_the_command_that_the_manifest_names_gives_the_same_numbers(
    tmp_path, tiny_run, quintain, tables, monkeypatch
):
    program, *arguments = shlex.split(manifest(tiny_run)["repeat"])
    assert program == "quintain"
    arguments = [str(tmp_path / "new") if one == "NEW_DIRECTORY" else one for one in arguments]
    monkeypatch.chdir(tiny_run)
    assert quintain(*arguments).code == 0
    assert tables(tmp_path / "new") == tables(tiny_run)
    assert manifest(tmp_path / "new")["cells"] != []


def test_a_finished_cell_is_not_computed_again(
    tmp_path, tiny_run, quintain, write_suite, snapshot, tables
):
    out = tmp_path / "out"
    shutil.copytree(tiny_run, out)
    before = snapshot(out / "records")
    answer = quintain("run", write_suite(), "--out", out, "--device", "cpu")
    assert "(2 were there already)" in answer.out
    assert snapshot(out / "records") == before
    assert (out / "tradeoff.csv").read_bytes() == (tiny_run / "tradeoff.csv").read_bytes()


@pytest.mark.parametrize("damage", ["missing", "cut", "bit", "empty"])
def test_a_cell_that_is_missing_or_damaged_is_computed_again_and_no_other(
    damage, tmp_path, tiny_run, quintain, write_suite, snapshot, tables
):
    out = tmp_path / "out"
    shutil.copytree(tiny_run, out)
    before = snapshot(out / "records")
    name = next(one for one in before if "-pgd-" in one)
    path = out / "records" / name
    content = path.read_bytes()
    at = content.index(b"smallest_epsilon") + 3
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-9], "bit": flipped, "empty": b""}[damage])
    answer = quintain("run", write_suite(), "--out", out, "--device", "cpu")
    assert answer.code == 0
    assert "(1 were there already)" in answer.out
    after = snapshot(out / "records")
    assert set(after) == set(before)
    assert [one for one in before if after[one] != before[one]] == [name]
    assert tables(out) == tables(tiny_run)


def test_the_batch_size_changes_nothing(tmp_path, quintain, write_suite, tables):
    found = {}
    for size in (None, "16", "32"):
        out = tmp_path / f"out-{size}"
        top = {"batch_size": size, "n_examples": "40", "leaderboard_epsilon": '"8/255"'}
        suite = write_suite(attacks=THREE, **top)
        assert quintain("run", suite, "--out", out, "--device", "cpu").code == 0
        found[size] = tables(out)
    assert found["16"] == found[None]
    assert found["32"] == found[None]
    board = table(tmp_path / "out-None", "leaderboard")
    assert 0 < float(board["robust_accuracy"].item()) < float(board["clean_accuracy"].item())


def test_another_batch_size_takes_over_the_cells_that_are_there(
    tmp_path, tiny_run, quintain, write_suite
):
    shutil.copytree(tiny_run, tmp_path / "out")
    suite = write_suite(batch_size="16")
    answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu", "--update")
    assert "(2 were there already)" in answer.out


def test_another_seed_is_another_run(tmp_path, tiny_run, quintain, write_suite, tables):
    out = tmp_path / "out"
    assert quintain("run", write_suite(), "--out", out, "--device", "cpu", "--seed", 1).code == 0
    assert manifest(out)["suite"]["seed"] == 1
    assert manifest(out)["indices"] != manifest(tiny_run)["indices"]
    mine, theirs = table(out, "leaderboard"), table(tiny_run, "leaderboard")
    assert mine["weights_hash"].item() != theirs["weights_hash"].item()
    assert mine["config_hash"].item() != theirs["config_hash"].item()
    assert tables(out)["tradeoff"] != tables(tiny_run)["tradeoff"]


@pytest.mark.parametrize(
    "change",
    [
        {"attacks": attacks("fgsm", "pgd").replace("steps = 3\n", "", 1) + "step_size = 0.5\n"},
        {"attacks": attacks("fgsm", "pgd").replace("steps = 3\n", "", 1) + "restarts = 2\n"},
        {"attacks": attacks("fgsm", "pgd").replace("steps = 3\n", "", 1) + "query_budget = 9\n"},
        {"attacks": attacks("fgsm", "pgd").replace("steps = 3\n", "", 1) + 'search = "exhaustive"'},
        {"epsilons": '["8/255", 0.10, 0.031, 0.24]'},
        {"norm": '"L2"'},
        {"n_examples": "23"},
    ],
)
def test_what_can_change_a_number_is_a_cell_of_its_own(
    change, tmp_path, tiny_run, quintain, write_suite
):
    out = tmp_path / "out"
    shutil.copytree(tiny_run, out)
    before = {one["attack"]: one["key"] for one in manifest(out)["cells"]}
    suite = write_suite(**change)
    assert quintain("run", suite, "--out", out, "--device", "cpu", "--update").code == 0
    after = {one["attack"]: one["key"] for one in manifest(out)["cells"]}
    assert after["pgd"] != before["pgd"]
    assert (after["fgsm"] == before["fgsm"]) == ("attacks" in change)


def test_an_attack_is_added_to_a_suite_without_the_others_being_run_again(
    tmp_path, tiny_run, quintain, write_suite, snapshot
):
    out = tmp_path / "out"
    shutil.copytree(tiny_run, out)
    before = snapshot(out / "records")
    more = '[[attacks]]\nname = "pgd"\nlabel = "margin"\nloss = "margin"\nsteps = 2\n'
    suite = write_suite()
    suite.write_text(suite.read_text() + more)
    answer = quintain("run", suite, "--out", out, "--device", "cpu", "--update")
    assert "3 of 3 cells done (2 were there already)" in answer.out
    after = snapshot(out / "records")
    assert {name: after[name] for name in before} == before
    assert table(out, "leaderboard")["attacks"].item() == "fgsm;pgd;margin"


def test_a_label_is_only_a_name(tmp_path, tiny_run, quintain, write_suite):
    out = tmp_path / "out"
    suite = write_suite(
        attacks=attacks("fgsm", "pgd").replace("steps = 3\n", 'label = "a/b, \\"c\\""\n', 1)
    )
    assert quintain("run", suite, "--out", out, "--device", "cpu").code == 0
    mine, theirs = table(out), table(tiny_run)
    assert mine["attack"].tolist() == ['a/b, "c"'] * 4 + ["pgd"] * 4 + ["worst-case"] * 4
    assert mine["robust_accuracy"].tolist() == theirs["robust_accuracy"].tolist()
    config = "config_hash"
    assert table(out, "leaderboard")[config].item() == table(tiny_run, "leaderboard")[config].item()


# ----------------------------------------------------------------------------- cells that fail


@pytest.fixture
def failing(tmp_path, write_suite):
    (tmp_path / "faults.py").write_text(PLUGIN)
    return write_suite(
        plugins='["faults.py"]', attacks=attacks("raises", "nan", "shapeless", "pgd")
    )


def test_a_cell_that_fails_is_reported_and_the_others_go_on(
    failing, tmp_path, quintain, monkeypatch, tiny_run
):
    monkeypatch.setenv("QUINTAIN_TEST_FAULT", "1")
    out = tmp_path / "out"
    answer = quintain("run", failing, "--out", out, "--device", "cpu")
    assert answer.code == 1
    assert "1 of 4 cells done, 3 failed" in answer.out
    failures = [line for line in answer.err.splitlines() if "FAILED" in line]
    assert len(failures) == 3
    assert "x raises: FAILED: RuntimeError: something broke" in failures[0]
    assert "x nan: FAILED: " in failures[1]
    assert "x shapeless: FAILED: " in failures[2]
    assert "x_adv of shape" in failures[2]
    assert "Traceback" not in answer.err + answer.out

    shown = table(out)
    assert set(shown["attack"]) == {"pgd", "worst-case"}
    worst = shown[shown["attack"] == "worst-case"]
    assert set(worst["flags"]) == {"failed:nan;failed:raises;failed:shapeless"}
    assert set(shown[shown["attack"] == "pgd"]["flags"]) == {""}
    board = table(out, "leaderboard")
    assert board["flags"].tolist() == ["failed:nan;failed:raises;failed:shapeless"]
    assert board["attacks"].tolist() == ["pgd"]
    theirs = table(tiny_run)
    numbers = "robust_accuracy"
    assert (
        shown[shown["attack"] == "pgd"][numbers].tolist()
        == theirs[theirs["attack"] == "pgd"][numbers].tolist()
    )

    cells = {one["attack"]: one for one in manifest(out)["cells"]}
    assert [one["status"] for one in cells.values()] == ["failed"] * 3 + ["done"]
    assert cells["raises"]["error"] == "RuntimeError: something broke"
    assert len(list((out / "records").glob("*.parquet"))) == 1
    (traceback,) = (out / "records").glob("*-raises-*.error.txt")
    assert "faults.py" in traceback.read_text()


def test_a_failed_cell_is_tried_again(failing, tmp_path, quintain, monkeypatch, snapshot):
    out = tmp_path / "out"
    monkeypatch.setenv("QUINTAIN_TEST_FAULT", "1")
    assert quintain("run", failing, "--out", out, "--device", "cpu").code == 1
    before = snapshot(out / "records")
    (kept,) = (one for one in before if one.endswith(".parquet"))
    monkeypatch.delenv("QUINTAIN_TEST_FAULT")
    answer = quintain("run", failing, "--out", out, "--device", "cpu")
    assert answer.code == 1
    assert "2 of 4 cells done (1 were there already), 2 failed" in answer.out
    assert snapshot(out / "records")[kept] == before[kept]
    assert not list((out / "records").glob("*-raises-*.error.txt"))
    assert set(table(out)["attack"]) == {"raises", "pgd", "worst-case"}
    assert table(out, "leaderboard")["flags"].item() == "failed:nan;failed:shapeless"
    joint = quintain("leaderboard", out, "--format", "csv")
    assert joint.out == (out / "leaderboard.csv").read_text()


def test_an_edited_plugin_is_run_again(tmp_path, failing, quintain, write_suite):
    from quintain.bench.api import registry

    suite = write_suite(plugins='["faults.py"]', attacks=attacks("raises", "pgd"))
    out = tmp_path / "out"
    with registry.temporary():
        assert quintain("run", suite, "--out", out, "--device", "cpu").code == 0
    (tmp_path / "faults.py").write_text(PLUGIN + "# edited\n")
    answer = quintain("run", suite, "--out", out, "--device", "cpu")
    assert "2 of 2 cells done (1 were there already)" in answer.out


def test_a_network_that_cannot_be_trained_fails_its_cells_and_no_others(
    tmp_path, quintain, write_suite
):
    (tmp_path / "faults.py").write_text(NAN_MODEL)
    suite = write_suite(plugins='["faults.py"]')
    text = suite.read_text()
    suite.write_text(text.replace("[[models]]", '[[models]]\nname = "diverges"\n\n[[models]]'))
    out = tmp_path / "out"
    answer = quintain("run", suite, "--out", out, "--device", "cpu")
    assert answer.code == 1
    assert "2 of 4 cells done, 2 failed" in answer.out
    assert "diverges x none: FAILED: " in answer.err
    assert "Traceback" not in answer.err
    assert set(table(out)["model"]) == {"resnet"}
    assert [one["status"] for one in manifest(out)["cells"]] == ["failed", "failed", "done", "done"]


def test_when_everything_fails_there_are_no_tables(tmp_path, quintain, write_suite):
    (tmp_path / "faults.py").write_text(PLUGIN)
    suite = write_suite(plugins='["faults.py"]', attacks=attacks("nan"))
    out = tmp_path / "out"
    answer = quintain("run", suite, "--out", out, "--device", "cpu")
    assert answer.code == 1
    assert "0 of 1 cells done, 1 failed" in answer.out
    assert not (out / "tradeoff.csv").exists()
    assert quintain("leaderboard", out).error.startswith("no finished cell in ")


# ------------------------------------------------------------------------------- odd but sound


WRONG_MODEL = """
import torch
from torch import nn
from quintain.bench.api import registry

@registry.model("stubborn")
def stubborn(inputs):
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(inputs.n_classes))
        def forward(self, x):
            return self.weight + x.mean((1, 2, 3))[:, None] * 0.0 + 1.0 * (
                torch.arange(len(self.weight)) == 0
            )
    return Stubborn()
"""


def test_a_model_that_is_never_right_has_rows_like_any_other(tmp_path, quintain, write_suite):
    (tmp_path / "wrong.py").write_text(WRONG_MODEL)
    (tmp_path / "ones.py").write_text(ONES)
    suite = write_suite(
        plugins='["wrong.py", "ones.py"]',
        dataset='"ones"',
        n_examples="1",
        epsilons="[0.1]",
        models='[[models]]\nname = "stubborn"\n',
    )
    out = tmp_path / "out"
    answer = quintain("run", suite, "--out", out, "--device", "cpu")
    assert answer.code == 0
    shown = table(out)
    assert shown["attack"].tolist() == ["fgsm", "pgd", "worst-case"]
    for column in ("clean_accuracy", "robust_accuracy"):
        assert set(shown[column]) == {"0.0"}
    assert set(shown["attack_success_rate"]) == {""}
    assert table(out, "leaderboard")["curve_area"].tolist() == ["0.0"]


ONES = """
from dataclasses import dataclass
import torch
from quintain.bench.api import registry
from quintain.bench.datasets.in_memory import in_memory

@registry.dataset("ones")
@dataclass(frozen=True)
class Ones:
    '''Images that are all of the second class.'''

    def load(self, split):
        x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        return in_memory(x, torch.ones(20, dtype=torch.int64), ("zero", "one"))
"""


def test_what_a_proxy_cost_and_how_good_it_is_reach_the_table(tmp_path, quintain, write_suite):
    transfer = """
[[attacks]]
name = "transfer"
steps = 3
[attacks.gradient]
name = "proxy"
architecture = { name = "resnet", depth = 8, width = 0.25 }
query_budget = 60
training = { epochs = 1, batch_size = 32, augmentation = "none" }
"""
    suite = write_suite(attacks=transfer)
    assert quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu").code == 0
    first = table(tmp_path / "out")
    rows = first[first["attack"] == "transfer"]
    assert set(rows["setup_queries"]) == {"60"}
    assert {0.0 <= float(one) <= 1.0 for one in rows["fidelity"]} == {True}
    assert set(rows["backward_mean"]) == {"0.0"}  # it never asks the victim for a gradient


def test_a_run_with_plugins_names_the_file_they_are_beside(
    tmp_path, quintain, write_suite, monkeypatch
):
    (tmp_path / "faults.py").write_text(PLUGIN)
    suite = write_suite(plugins='["faults.py"]', attacks=attacks("raises"))
    assert quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu").code == 0
    _, *arguments = shlex.split(manifest(tmp_path / "out")["repeat"])
    monkeypatch.chdir(tmp_path / "out")
    arguments = [str(tmp_path / "new") if one == "NEW_DIRECTORY" else one for one in arguments]
    assert quintain(*arguments).code == 0
    new = manifest(tmp_path / "new")
    assert [one["key"] for one in new["cells"]] == [
        one["key"] for one in manifest(tmp_path / "out")["cells"]
    ]


def test_a_suite_whose_defense_lies_in_a_file_names_where_it_is(tmp_path, quintain, write_suite):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from quintain.bench.api.defense import Trained\n\n\n"
        "@dataclass(frozen=True)\nclass Mine:\n"
        "    def fit(self, model, training):\n        return Trained(model)\n"
    )
    suite = write_suite(defenses='[[defenses]]\nname = "mine.py:Mine"\n')
    assert quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu").code == 0
    assert f"run ../{suite.name} " in manifest(tmp_path / "out")["repeat"]


def test_an_interrupt_is_said_in_one_line(quintain, write_suite, monkeypatch, tmp_path):
    from quintain.bench.suite import runner

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.Runner, "run", interrupted)
    answer = quintain("run", write_suite(), "--out", tmp_path / "out", "--device", "cpu")
    assert answer.code == 130
    assert answer.err.splitlines()[-1].startswith("quintain: interrupted; the same command resumes")
    assert "Traceback" not in answer.err


def test_adversarial_examples_are_saved_on_request_and_hold(quintain, write_suite, tmp_path):
    out = tmp_path / "out"
    plain = write_suite("one.toml")
    assert quintain("run", plain, "--out", out, "--device", "cpu").code == 0
    assert not list((out / "records").glob("*.safetensors"))
    saving = write_suite("one.toml", save_adversarials="true")
    again = quintain("run", saving, "--out", out, "--device", "cpu", "--update")
    assert again.code == 0
    assert "were there already" not in again.out  # they had no adversarial examples beside them
    for path in (out / "records").glob("*.safetensors"):
        cell, saved = read_cell(path.with_suffix(".parquet")), load_file(path)
        broken = np.stack(cell.records["broken"])
        places = set(zip(saved["row"].tolist(), saved["point"].tolist(), strict=True))
        assert saved["x_adv"].shape[0] == len(places) > 0
        if "fgsm" in path.name:  # a single step is an attack of its own at each epsilon
            assert places == set(zip(*broken.nonzero(), strict=True))
        else:
            rows = np.flatnonzero(broken.any(axis=1))
            assert places == {(row, broken[row].argmax()) for row in rows}
    third = quintain("run", saving, "--out", out, "--device", "cpu")
    assert "2 were there already" in third.out


@pytest.mark.parametrize(
    ("rest", "expected"),
    [(0.0, [[], ["fgsm"], ["fgsm", "pgd"], ["fgsm", "pgd"]]), (1e9, [[], ["fgsm", "pgd"]])],
)
def test_a_manifest_counts_every_cell_as_soon_as_that_costs_little(
    rest, expected, quintain, write_suite, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_manifest, "_REST", rest)
    seen = []
    written = RunDirectory.write_manifest

    def look(self, about):
        seen.append([one["attack"] for one in about["cells"] if one["status"] == "done"])
        written(self, about)

    monkeypatch.setattr(RunDirectory, "write_manifest", look)
    quintain("run", write_suite(), "--out", tmp_path / "out", "--device", "cpu")
    assert seen == expected


def test_an_unwritable_cache_is_refused_before_any_work(
    quintain, write_suite, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "file" / "cache"))
    answer = quintain("run", write_suite(), "--out", tmp_path / "out", "--device", "cpu")
    assert answer.code == 2
    assert "set QUINTAIN_CACHE to another one" in answer.error
    assert not (tmp_path / "out").exists()
