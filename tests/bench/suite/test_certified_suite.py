"""Certificates in a suite: a cell like any other, beside the attacks and never among them."""

import json

import pandas as pd
import pytest

from quintain.bench.report.tables import leaderboard, tradeoff, worst_case
from quintain.bench.store.cell import Cell, Lost
from quintain.bench.store.records import read_cell

PLUGIN = """
import os
import torch
from dataclasses import dataclass
from typing import ClassVar
from torch import nn
from quintain.bench.api import registry
from quintain.bench.api.defense import Certificates, Trained

class Proved(nn.Module):
    certifies = "L2"

    def __init__(self, network, boast):
        super().__init__()
        self.network, self.boast = network, boast

    def forward(self, x):
        return self.network(x)

    def certify(self, x, draws, batch_size):
        if os.environ.get("QUINTAIN_TEST_FAULT"):
            raise RuntimeError("no proof today")
        logits = self.network(x).double()
        weight = self.network[1].weight.double()
        y = logits.argmax(1)
        lead = logits.gather(1, y[:, None]) - logits
        length = torch.linalg.norm(weight[y][:, None] - weight[None], dim=2)
        distance = (lead / length).masked_fill(lead == 0, torch.inf).amin(1)
        return Certificates(y, self.boast * 0.9999 * distance)

    def predict(self, x, draws, batch_size):
        return self.network(x).argmax(1)

@registry.model("flat")
def flat(inputs):
    channels, height, width = inputs.shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, inputs.n_classes))

@registry.defense("proved")
@dataclass(frozen=True)
class Proving:
    certifies: ClassVar[str] = "L2"
    boast: float = 1.0

    def fit(self, model, training):
        rows = torch.arange(len(training.data))
        x, y = training.data.images.read(rows), training.data.labels
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return Trained(self.wrap(model))

    def wrap(self, model):
        return Proved(model, self.boast)

@registry.defense("plain")
@dataclass(frozen=True)
class Plain(Proving):
    certifies: ClassVar[None] = None

    def wrap(self, model):
        return model
"""
DEFENSES = """
[[defenses]]
name = "plain"
[[defenses]]
name = "proved"
[[defenses]]
name = "proved"
label = "boasting"
boast = 3.0
"""
ATTACKS = '[[attacks]]\nname = "fgsm"\n[[attacks]]\nname = "pgd"\nsteps = 20\n'
EPSILONS = ["0.1", "0.3", "0.6"]


@pytest.fixture
def run(write_suite, quintain, tmp_path):
    (tmp_path / "proofs.py").write_text(PLUGIN)

    def go(code=0, out="out", **changes):
        keys = {
            "plugins": '["proofs.py"]', "models": '[[models]]\nname = "flat"\n', "norm": '"L2"',
            "defenses": DEFENSES, "attacks": ATTACKS, "epsilons": json.dumps(EPSILONS),
            "n_examples": "60", **changes,
        }  # fmt: skip
        answer = quintain(
            "run", write_suite(**keys), "--out", tmp_path / out, "-v", "--device", "cpu"
        )
        assert answer.code == code, answer.err
        return answer.out

    return go


def tables(out):
    return [
        pd.read_csv(out / f"{name}.csv", dtype={"epsilon": str}, keep_default_na=False)
        for name in ("tradeoff", "leaderboard")
    ]


def cells(out):
    manifest = json.loads((out / "manifest.json").read_text())
    return {(one["defense"], one["attack"]): out / one["file"] for one in manifest["cells"]}


def test_certificates_stand_beside_the_attacks_and_count_in_nothing(run, tmp_path):
    said = run()
    assert "8 of 8 cells done" in said
    shown, board = tables(tmp_path / "out")
    rows = shown.set_index(["defense", "attack"])
    assert set(shown["attack"]) == {"fgsm", "pgd", "worst-case", "certified"}
    assert ("plain", "certified") not in rows.index
    proved, worst = rows.loc[("proved", "certified")], rows.loc[("proved", "worst-case")]
    assert proved["epsilon"].tolist() == EPSILONS
    assert set(proved["access"]) == {"certificate"}
    assert (proved["robust_accuracy"] <= worst["robust_accuracy"].to_numpy()).all()
    assert (proved["ci_low"] < proved["robust_accuracy"]).all()
    for name in ("attack_success_rate", "forward_mean", "queries_mean", "attacked"):
        assert set(proved[name]) == {""}
    assert set(worst["access"]) == {"white-box"}
    alone = rows.loc[("plain", "worst-case")]  # the same network, attacked alike
    assert alone["robust_accuracy"].tolist() == worst["robust_accuracy"].tolist()
    by = board.set_index("defense")
    middle = proved.set_index("epsilon").loc["0.3", "robust_accuracy"]
    assert float(by.loc["proved", "certified_accuracy"]) == middle
    assert 0 < middle < float(by.loc["proved", "clean_accuracy"])
    assert by.loc["plain", "certified_accuracy"] == ""
    assert by.loc["proved", "attacks"] == "fgsm;pgd"
    assert "| proved" in said.split("Leaderboard")[0]
    assert "certified" in said


def test_a_wrong_certifier_is_found_out_everywhere(run, tmp_path):
    said = run()
    shown, board = tables(tmp_path / "out")
    flags = shown.set_index(["defense", "attack"])["flags"].groupby(level=[0, 1]).first()
    worst = flags["boasting", "worst-case"]
    count = int(worst.removeprefix("contradicted-certificates:"))
    assert count > 10
    flatten_cascade = [
        read_cell(cells(tmp_path / "out")["boasting", one]) for one in ("fgsm", "pgd")
    ]
    union = flatten_cascade[0].records["contradicts"] | flatten_cascade[1].records["contradicts"]
    assert count == union.sum()
    assert flags["boasting", "pgd"].startswith("contradicted-certificates:")
    assert set(flags["proved"]) == {""}
    by = board.set_index("defense")["flags"]
    assert by["boasting"] == worst
    assert by["proved"] == ""
    assert f"boasting x worst-case: {worst}" in said


def test_what_is_finished_is_not_made_again_and_certificates_are_read(run, tmp_path):
    run()
    assert "(8 were there already)" in run()
    out = tmp_path / "out"
    before = {place: path.read_bytes() for place, path in cells(out).items()}
    cells(out)["boasting", "pgd"].unlink()
    assert "(7 were there already)" in run()  # audited by the certificates that were there
    again = read_cell(cells(out)["boasting", "pgd"])
    assert again.records["contradicts"].any()
    cells(out)["boasting", "certified"].unlink()
    assert "(7 were there already)" in run()
    for place, path in cells(out).items():
        if place[1] == "certified":
            old = tmp_path / "old.parquet"
            old.write_bytes(before[place])
            assert read_cell(path).records.equals(read_cell(old).records)


def test_keys_depend_on_what_certificates_depend_on(run, tmp_path):
    def key(out, **changes):
        run(out=out, **changes)
        return read_cell(cells(tmp_path / out)["proved", "certified"]).about["key"]

    first = key("a")
    assert key("b") == first
    assert key("c", seed="1") != first
    assert key("d", epsilons='["0.1", "0.3"]') != first
    assert key("e", attacks='[[attacks]]\nname = "fgsm"\n', precision='"float32"') == first
    louder = DEFENSES.replace('"proved"\n[[', '"proved"\nboast = 2.0\n[[')
    assert key("f", defenses=louder) != first


def test_certificates_that_fail_are_a_failed_cell_and_come_later(run, tmp_path, monkeypatch):
    monkeypatch.setenv("QUINTAIN_TEST_FAULT", "1")
    said = run(code=1)
    assert "6 of 8 cells done, 2 failed" in said
    out = tmp_path / "out"
    shown, board = tables(out)
    assert "certified" not in set(shown["attack"])
    flags = board.set_index("defense")["flags"]
    assert flags["plain"] == ""
    assert flags["proved"] == flags["boasting"] == "failed:certified"
    monkeypatch.delenv("QUINTAIN_TEST_FAULT")
    assert "(6 were there already)" in run()
    _, board = tables(out)
    flags = board.set_index("defense")["flags"]
    assert flags["proved"] == ""
    # the attacks were not audited: their adversarial examples within the radius are believed
    assert flags["boasting"].startswith("contradicted-certificates:")


def test_no_attack_may_take_the_name(write_suite, quintain, tmp_path):
    suite = write_suite(attacks='[[attacks]]\nname = "pgd"\nlabel = "certified"\n')
    answer = quintain("run", suite, "--out", tmp_path / "out", "--verbose")
    assert answer.code == 2
    assert "an attack cannot be called 'certified'" in answer.error


def about(attack, access, **more):
    return {
        "dataset": "d", "n_examples": 3, "model": "m", "defense": "x", "attack": attack,
        "access": access, "norm": "L2", "epsilons": ["0.1", "0.2"], "epsilon_values": [0.1, 0.2],
        "leaderboard_epsilon": "0.1", "seed": 0, "seconds": 1.0, "device": "cpu",
        "dtype": "float32", "flags": [], "report": {}, "parameters": 1, "key": attack,
        "weights_hash": "w", **more,
    }  # fmt: skip


def records(broken, **columns):
    return pd.DataFrame(
        {
            "index": [0, 1, 2], "label": [1, 1, 1], "clean_prediction": [1, 1, 1],
            "under_attack": True, "broken": broken, "attacked": broken, "forward": 1,
            "backward": 1, "queries": 1, **columns,
        }
    )  # fmt: skip


NO, LATE, YES = [False, False], [False, True], [True, True]


def test_adversarial_examples_of_cells_that_were_not_audited_count_when_they_lie_within():
    distance = [float("nan"), 0.15, 0.05]
    radius = [0.3, 0.12, 0.06]
    attack = Cell(about("pgd", "white-box"), records([NO, LATE, YES], distance=distance))
    proofs = Cell(
        about("certified", "certificate"), records([NO, LATE, YES], radius=radius, distance=0.0)
    )
    worst = worst_case([attack], certificates=proofs)
    assert worst.about["flags"] == ["contradicted-certificates:1"]
    proofs.records.loc[2, "clean_prediction"] = -1  # it abstained: nothing to contradict
    assert worst_case([attack], certificates=proofs).about["flags"] == []
    audited = Cell(
        about("fgsm", "white-box", flags=["contradicted-certificates:1"]),
        records([NO, NO, NO], distance=float("nan"), contradicts=[True, False, False]),
    )
    both = worst_case([attack, audited], certificates=proofs)
    assert both.about["flags"] == ["contradicted-certificates:1"]


def test_certificates_that_failed_cost_no_rank():
    better = Cell(about("pgd", "white-box"), records([NO, NO, NO], distance=float("nan")))
    worse = Cell(
        about("pgd", "white-box", defense="y"), records([NO, NO, YES], distance=float("nan"))
    )

    def ranked(*lost):
        failed = [Lost("d", "L2", "m", "x", one) for one in lost]
        return leaderboard([better, worse], failed)["defense"].tolist()

    assert ranked() == ranked("certified") == ["x", "y"]
    assert ranked("fgsm") == ranked("certified", "fgsm") == ranked("certified-twice") == ["y", "x"]


def test_certificates_alone_have_rows_and_no_rank():
    proofs = Cell(about("certified", "certificate"), records([NO, LATE, YES], radius=0.1))
    assert tradeoff([proofs])["attack"].tolist() == ["certified"] * 2
    assert tradeoff([proofs])["robust_accuracy"].tolist() == [2 / 3, 1 / 3]
    assert leaderboard([proofs]).empty
