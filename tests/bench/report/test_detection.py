"""A suite with a detector: which cells it has, its table, and how it is resumed."""

import pandas as pd
import pytest

from quintain.bench.api.errors import BadSuite
from quintain.bench.report.detection import DETECTION_COLUMNS
from quintain.bench.store.cell import per_epsilon
from quintain.bench.store.run_directory import read_cells
from quintain.bench.suite.config import read_suite
from quintain.bench.suite.plan import make_plan

BASE = "epochs = 4, batch_size = 32, learning_rate = 0.1, augmentation = 'none'"
DEFENSES = f"""
[[defenses]]
name = "none"
epochs = 4
batch_size = 32
learning_rate = 0.1
augmentation = "none"

[[defenses]]
name = "mahalanobis"
base = {{ name = "none", {BASE} }}
"""
ATTACKS = """
[[attacks]]
name = "fgsm"

[[attacks]]
name = "pgd"
steps = 5
"""


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """A finished run. Not to be changed."""
    from quintain.bench import cli

    folder = tmp_path_factory.mktemp("detection")
    (folder / "tiny.toml").write_text(
        'dataset = "digits"\nn_examples = 40\nepsilons = ["0.05", "0.20"]\nsearch = "exhaustive"\n'
        '[[models]]\nname = "resnet"\ndepth = 8\nwidth = 0.25\n' + DEFENSES + ATTACKS
    )
    with pytest.raises(SystemExit) as ending:
        cli.main(["run", str(folder / "tiny.toml"), "--out", str(folder / "run")])
    assert ending.value.code == 0
    return folder / "run"


def table(run):
    return pd.read_csv(run / "detection.csv", dtype={"epsilon": str})


def test_detectors_are_also_met_by_attacks_that_do_not_know_of_them(run):
    tradeoff = pd.read_csv(run / "tradeoff.csv")
    met = tradeoff.groupby("defense")["attack"].unique().map(list).to_dict()
    assert met["none"] == ["fgsm", "pgd", "worst-case"]
    assert met["mahalanobis"] == ["fgsm", "fgsm (naive)", "pgd", "pgd (naive)", "worst-case"]


def test_the_table_has_a_row_for_each_attack_and_epsilon(run):
    found = table(run)
    assert list(found.columns) == DETECTION_COLUMNS
    assert set(found["defense"]) == {"mahalanobis"}
    assert list(zip(found["attack"], found["epsilon"], strict=True)) == [
        (attack, epsilon)
        for attack in ("fgsm", "fgsm (naive)", "pgd", "pgd (naive)")
        for epsilon in ("0.05", "0.20")
    ]
    assert (found["naive"] == found["attack"].str.endswith("(naive)")).all()
    assert (found["false_positive_rate_target"] == 0.05).all()
    assert found["false_positive_rate"].nunique() == 1
    for share in ("false_positive_rate", "clean_accuracy", "accuracy", "detection_rate", "roc_auc"):
        assert found[share].dropna().between(0, 1).all()
    assert (found["n_adversarial"] <= found["n_examples"]).all()


def test_accuracies_are_those_of_the_other_table(run):
    tradeoff = pd.read_csv(run / "tradeoff.csv", dtype={"epsilon": str})
    both = table(run).merge(tradeoff, on=["model", "defense", "attack", "epsilon"])
    assert len(both) == len(table(run))
    assert (both["accuracy"] == both["robust_accuracy"]).all()
    assert (both["clean_accuracy_x"] == both["clean_accuracy_y"]).all()


def test_of_the_naive_attacks_candidates_those_not_detected_break(run):
    """What the classifier gets wrong is either rejected or adversarial, at each epsilon alone."""
    cells, _ = read_cells(run)
    checked = 0
    for cell in cells:
        if cell.about.get("naive"):
            score = per_epsilon(cell.records, "candidate_rejection_margin")
            assert (per_epsilon(cell.records, "broken") == (score <= 0)).all()  # false for NaN
            checked += (score > 0).sum()
    assert checked > 5


def test_a_second_run_does_nothing_and_leaves_every_file(run, quintain, snapshot):
    before = snapshot(run)
    answer = quintain("run", run.parent / "tiny.toml", "--out", run)
    assert answer.code == 0
    after = snapshot(run)
    assert before.pop("suite.toml")[0] == after.pop("suite.toml")[0]  # written each time
    assert "detection.csv" in before
    assert after == before


def test_the_table_is_made_again_from_the_records_alike(run, quintain):
    before = (run / "detection.csv").read_bytes()
    (run / "detection.csv").unlink()
    assert quintain("run", run.parent / "tiny.toml", "--out", run).code == 0
    assert (run / "detection.csv").read_bytes() == before


def test_another_rate_makes_other_cells(run, quintain, tmp_path):
    text = (run.parent / "tiny.toml").read_text()
    assert text.count('name = "mahalanobis"\n') == 1
    suite = tmp_path / "tiny.toml"
    suite.write_text(
        text.replace('name = "mahalanobis"\n', 'name = "mahalanobis"\nfalse_positive_rate = 0.2\n')
    )
    assert quintain("run", suite, "--out", tmp_path / "run").code == 0
    found = table(tmp_path / "run")
    assert (found["false_positive_rate_target"] == 0.2).all()
    assert found["false_positive_rate"].iloc[0] > table(run)["false_positive_rate"].iloc[0]
    names = [{one.name for one in (at / "records").iterdir()} for at in (run, tmp_path / "run")]
    assert len(names[0] & names[1]) == 2  # those of the undefended network


def test_runs_without_a_detector_have_no_such_table(tiny_run):
    assert not (tiny_run / "detection.csv").exists()


def test_naive_attacks_meet_detectors_alone_and_search_at_every_epsilon(write_suite):
    suite, _, folder = read_suite(str(write_suite(defenses=DEFENSES)))
    plan = make_plan(suite, "tiny.toml", folder)
    naive = [number for number, one in enumerate(plan.tasks) if one.naive]
    assert naive
    assert not set(naive) & set(plan.tasks_on(0))
    assert set(naive) <= set(plan.tasks_on(1))
    for number in naive:
        settings = plan.tasks[number].settings
        assert (settings.detector_unaware, settings.search) == (True, "exhaustive")


def test_models_of_ones_own_has_a_reject_option(quintain, write_suite, tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Own(nn.Module):\n"
        "    rejects = True\n"
        "    false_positive_rate = 0.1\n"
        "    def forward(self, x):\n"
        "        mean = x.flatten(1).mean(dim=1, keepdim=True)\n"
        "        one_hot = torch.eye(11)[1].expand(len(x), 11)\n"
        "        return one_hot + 0 * mean + torch.eye(11)[10] * 10 * (mean - 0.2)\n"
        "def own(inputs):\n"
        "    return Own()\n"
    )
    models = '[[models]]\nname = "own.py:own"\ntrain = false\n'
    suite = write_suite(models=models, defenses="", attacks='[[attacks]]\nname = "fgsm"\n')
    assert quintain("run", suite, "--out", tmp_path / "run").code == 0
    found = table(tmp_path / "run")
    assert (found["false_positive_rate_target"] == 0.1).all()
    assert list(found["attack"].unique()) == ["fgsm"]


def test_a_model_that_says_so_must_have_a_logit_more(write_suite, tmp_path, quintain):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def own(inputs):\n"
        "    module = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))\n"
        "    module.rejects = True\n"
        "    return module\n"
    )
    models = '[[models]]\nname = "own.py:own"\ntrain = false\n'
    answer = quintain("run", write_suite(models=models, defenses=""), "--out", tmp_path / "run")
    assert answer.code == 2
    assert "10 classes and a rejection" in answer.error


def test_a_base_that_rejects_is_refused_before_any_work(quintain, write_suite, tmp_path):
    inner = "{ name = 'knn-distance', base = { name = 'none', epochs = 1 } }"
    defenses = f'[[defenses]]\nname = "mahalanobis"\nbase = {inner}\n'
    answer = quintain("run", write_suite(defenses=defenses), "--out", tmp_path / "run")
    assert answer.code == 2
    assert "defenses[1]: the base of a detector must not reject by itself" in answer.error


def test_a_bad_value_is_refused_before_any_work(write_suite):
    defenses = '[[defenses]]\nname = "mahalanobis"\nfalse_positive_rate = 2.0\n'
    suite, _, folder = read_suite(str(write_suite(defenses=defenses)))
    with pytest.raises(BadSuite, match=r"defenses\[1\]: false_positive_rate = 2.0"):
        make_plan(suite, "tiny.toml", folder)
