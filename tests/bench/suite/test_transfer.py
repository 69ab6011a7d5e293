"""The transfer matrix of a suite, and attacks by the gradients of a network at hand."""

import json

import pandas as pd
import pytest
import torch
from torch import nn

from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter
from quintain.bench.report.transfer import TRANSFER_COLUMNS, transfers
from quintain.bench.store.cell import Cell
from quintain.bench.store.records import read_cell

NETS = """
import torch
from torch import nn
from pathlib import Path

def net(which: str):
    made = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    made.load_state_dict(torch.load(Path(__file__).parent / f"{which}.pt", weights_only=True))
    return made
"""
NAMES = ("a", "b", "c")
MODELS = "".join(
    f'\n[[models]]\nname = "nets.py:net"\nlabel = "{name}"\ntrain = false\nwhich = "{name}"\n'
    for name in NAMES
)
ATTACK = '\n[[attacks]]\nname = "fgsm"\n'
EPSILONS = ["0.02", "0.08"]


@pytest.fixture
def digits_nets(tmp_path):
    """Three linear networks that read digits, and what changes one of them."""
    (tmp_path / "nets.py").write_text(NETS)
    data = registry.build("datasets", "digits").load("train")
    x, y = data.images.read(torch.arange(len(data))), data.labels

    def teach(name, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
            optimizer = torch.optim.Adam(network.parameters(), 0.01)
            for _ in range(30):
                rows = torch.randint(len(x), (128,))
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
                optimizer.step()
        torch.save(network.state_dict(), tmp_path / f"{name}.pt")
        return network.eval()

    teach.networks = {name: teach(name, seed) for seed, name in enumerate(NAMES)}
    return teach


@pytest.fixture
def matrix(digits_nets, write_suite, quintain, tmp_path):
    """Run a suite with a transfer matrix."""
    path = write_suite(
        models=MODELS, defenses="", attacks=ATTACK, epsilons=json.dumps(EPSILONS),
        transfer='{ name = "mi-fgsm", steps = 5 }', n_examples="60",
    )  # fmt: skip

    def run(code=0):
        answer = quintain("run", path, "--out", tmp_path / "out", "--device", "cpu")
        assert answer.code == code, answer.err
        return answer.out

    return run


def cells_of(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    return {
        (one["model"], one["attack"]): folder / one["file"]
        for one in manifest["cells"]
        if one["status"] == "done"
    }, manifest


def hashes_of(folder):
    """What each cell's file holds."""
    listed = json.loads((folder / "manifest.json").read_text())["cells"]
    return {(one["model"], one["attack"]): one["sha256"] for one in listed}


def title(name):
    return f"transfer from {name} x pretrained"


def test_every_network_is_attacked_by_the_gradients_of_every_other(matrix, digits_nets, tmp_path):
    assert "9 of 9 cells done" in matrix()
    cells, manifest = cells_of(tmp_path / "out")
    assert set(cells) == {(one, "fgsm") for one in NAMES} | {
        (target, title(source)) for target in NAMES for source in NAMES if source != target
    }
    table = pd.read_csv(tmp_path / "out" / "transfer.csv", dtype={"epsilon": str})
    assert table.columns.tolist() == TRANSFER_COLUMNS
    assert len(table) == 6 * len(EPSILONS)
    test = registry.build("datasets", "digits").load("test")
    rows = torch.tensor(manifest["indices"])
    x, y = test.images.read(rows), test.labels[rows]
    nets = digits_nets.networks
    for row in table.to_dict("records"):
        source, target = (row[name].partition(" ")[0] for name in ("source", "target"))
        spec = {"name": "mi-fgsm", "steps": 5, "gradient": {"name": "network", "network": "theirs"}}
        alone = evaluate(
            nets[target], x, y, spec, epsilons=EPSILONS, indices=rows,
            attacker_networks={"theirs": nets[source]},
        )  # fmt: skip
        wanted = alone.curve.set_index("epsilon").loc[row["epsilon"]]
        assert row["attack_success_rate"] == pytest.approx(wanted["attack_success_rate"])
        with torch.no_grad():
            right = nets[target](x).argmax(1) == y
            same = nets[source](x).argmax(1) == nets[target](x).argmax(1)
        assert row["n_examples"] == int(right.sum())
        assert row["fidelity"] == pytest.approx(same[right].double().mean().item())
    assert table["attack_success_rate"].max() > 0.2


def test_transfer_counts_in_the_worst_case_and_costs_the_victim_only_predictions(matrix, tmp_path):
    matrix()
    table = pd.read_csv(tmp_path / "out" / "tradeoff.csv").set_index(["model", "attack"])
    for target in NAMES:
        rows = table.loc[target]
        worst = rows.loc["worst-case"]["robust_accuracy"].to_numpy()
        for attack in rows.index.unique():
            assert (worst <= rows.loc[attack]["robust_accuracy"].to_numpy()).all()
        theirs = rows[rows.index.str.startswith("transfer from")]
        assert set(theirs["access"]) == {"decision"}
        assert (theirs["backward_mean"] == 0).all()
        assert (theirs["queries_mean"] <= len(EPSILONS)).all()
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert all(title("a") in one for one in board.query("model != 'a'")["attacks"])


def test_a_finished_matrix_is_not_computed_again_and_other_weights_are(
    matrix, digits_nets, tmp_path
):
    matrix()
    before = hashes_of(tmp_path / "out")
    assert "(9 were there already)" in matrix()
    digits_nets("b", 99)
    assert "(4 were there already)" in matrix()  # three by fgsm less b's, and a and c on each other
    after = hashes_of(tmp_path / "out")
    same = {one for one in after if after[one] == before[one]}
    assert same == {("a", "fgsm"), ("c", "fgsm"), ("a", title("c")), ("c", title("a"))}


def test_cells_that_are_lost_are_made_again_alone(matrix, tmp_path):
    matrix()
    cells, _ = cells_of(tmp_path / "out")
    about = read_cell(cells["a", title("b")]).records
    cells["a", title("b")].unlink()
    (tmp_path / "out" / "transfer.csv").unlink()
    assert "(8 were there already)" in matrix()
    assert read_cell(cells["a", title("b")]).records.equals(about)
    assert (tmp_path / "out" / "transfer.csv").is_file()


def test_a_source_that_cannot_be_made_fails_its_own_cells_alone(matrix, tmp_path, monkeypatch):
    from quintain.bench.suite import networks

    real = networks.open_ready
    calls = []

    def broken(path, spec, data):
        calls.append(spec["which"])
        if spec["which"] == "b":
            raise RuntimeError("no such weights")
        return real(path, spec, data)

    monkeypatch.setattr(networks, "open_ready", broken)
    assert "4 of 9 cells done, 5 failed" in matrix(code=1)
    assert calls.count("b") == 1
    cells, _ = cells_of(tmp_path / "out")
    assert set(cells) == {("a", "fgsm"), ("c", "fgsm"), ("a", title("c")), ("c", title("a"))}
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    there = board[board["model"] != "b"]
    assert all(f"failed:{title('b')}" in one for one in there["flags"])
    assert board[board["model"] == "b"]["robust_accuracy"].isna().all()  # a row without numbers
    monkeypatch.setattr(networks, "open_ready", real)
    assert "(4 were there already)" in matrix()


def test_a_changed_network_does_without_a_source_that_cannot_be_made_any_more(
    matrix, tmp_path, monkeypatch
):
    from quintain.bench.suite import networks

    matrix()
    real = networks.open_ready

    def another(path, spec, data):
        if spec["which"] == "b":
            raise RuntimeError("no such weights")
        network = real(path, spec, data)
        with torch.no_grad():
            network[1].weight *= 1.0 + 0.1 * (spec["which"] == "c")
        return network

    monkeypatch.setattr(networks, "open_ready", another)
    assert "5 of 9 cells done (2 were there already), 4 failed" in matrix(code=1)
    entries = json.loads((tmp_path / "out" / "manifest.json").read_text())["cells"]
    lost = {(one["model"], one["attack"]) for one in entries if one["status"] == "failed"}
    assert lost == {("b", "fgsm"), ("b", title("a")), ("b", title("c")), ("c", title("b"))}
    assert {one["error"] for one in entries if "error" in one} == {"RuntimeError: no such weights"}


@pytest.mark.parametrize(
    ("models", "transfer", "says"),
    [
        (1, "true", "transfer: it takes two networks at least"),
        (3, '"noise"', "transfer: attack 'noise' follows no gradient"),
        (3, '{ name = "mi-fgsm", step = 3 }', "no parameter 'step'; did you mean 'steps'"),
        (3, "7", "transfer"),
    ],
)
def test_what_cannot_be_is_refused(
    digits_nets, write_suite, quintain, tmp_path, models, transfer, says
):
    some = "".join(f"\n[[models]]{one}" for one in MODELS.split("\n[[models]]")[1 : models + 1])
    suite = write_suite(models=some, defenses="", attacks=ATTACK, transfer=transfer)
    answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu")
    assert answer.code == 2
    assert says in answer.error
    assert not (tmp_path / "out").exists()


def test_without_the_key_there_is_no_matrix(tiny_run):
    assert not (tiny_run / "transfer.csv").exists()


def test_the_innermost_source_is_replaced():
    mine = {"name": "network", "network": "n"}
    through = registry.through
    assert through("attacks", "mi-fgsm", mine) == {"name": "mi-fgsm", "gradient": mine}
    spec = {"name": "pgd", "steps": 3, "gradient": {"name": "input-diversity", "smallest": 0.8}}
    assert through("attacks", spec, mine) == {
        "name": "pgd", "steps": 3,
        "gradient": {"name": "input-diversity", "smallest": 0.8, "gradient": mine},
    }  # fmt: skip
    spec = {"name": "pgd", "gradient": {"name": "translation-invariant", "gradient": "autograd"}}
    assert through("attacks", spec, mine)["gradient"]["gradient"] == mine
    with pytest.raises(BadParameter, match="attack 'noise' follows no gradient"):
        through("attacks", "noise", mine)


def test_the_attackers_networks_are_left_as_they_are_and_unknown_ones_named(linear):
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Dropout())
    spec = {"name": "pgd", "steps": 2, "gradient": {"name": "network", "network": "mine"}}
    named = {"epsilons": [0.1], "attacker_networks": {"mine": other}}
    evaluate(linear.module, linear.images, linear.labels, spec, **named)
    assert other.training
    assert all(one.requires_grad for one in other.parameters())
    spec["gradient"]["network"] = "mein"
    with pytest.raises(BadParameter, match="has no network 'mein'; did you mean 'mine'"):
        evaluate(linear.module, linear.images, linear.labels, spec, **named)
    with pytest.raises(BadParameter, match=r"has no network 'mein'\. It has none"):
        evaluate(linear.module, linear.images, linear.labels, spec, epsilons=[0.1])


def test_by_the_gradients_of_the_victim_itself_it_is_white_box(linear):
    grid = linear.grid("Linf", 5)
    spec = {"name": "pgd", "gradient": {"name": "network", "network": "same"}}
    result = evaluate(
        linear.module, linear.images, linear.labels, spec, epsilons=grid,
        attacker_networks={"same": linear.module},
    )  # fmt: skip
    wanted = [(linear.distances["Linf"] > epsilon).mean() for epsilon in grid]
    assert result.curve["robust_accuracy"].tolist() == pytest.approx(wanted)
    assert (result.records["backward"] == 0).all()


def test_fidelity_is_unknown_without_the_sources_own_cell():
    records = pd.DataFrame(
        {
            "index": [0, 1], "label": [1, 2], "clean_prediction": [1, 2],
            "under_attack": [True, True], "broken": [[True], [False]], "attacked": [[True], [True]],
            "forward": [1, 1], "backward": [0, 0], "queries": [1, 1],
        }
    )  # fmt: skip
    about = {"dataset": "d", "norm": "Linf", "model": "m", "defense": "none", "epsilons": ["0.1"]}
    table = transfers([Cell({**about, "transfer_source": "gone x none"}, records)])
    assert table["attack_success_rate"].tolist() == [0.5]
    assert table["fidelity"].isna().all()
    assert transfers([Cell(about, records)]).empty
