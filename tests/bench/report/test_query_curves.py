"""Queries to success, beside what one counts by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from quintain.bench import evaluate
from quintain.bench.report.query_curves import QUERIES_COLUMNS, queries, query_curve, query_summary
from quintain.bench.report.tables import tradeoff, worst_case
from quintain.bench.report.write import read_table
from quintain.bench.store.cell import Cell

EPSILONS = ["0.1", "0.2"]


def records(solved, queries, under=None, broken=None):
    """Records of examples that fell after so many queries at each epsilon; 0: not."""
    count = len(solved)
    return pd.DataFrame(
        {
            "index": range(count),
            "label": 1,
            "clean_prediction": 1,
            "under_attack": [True] * count if under is None else under,
            "broken": broken or [[one > 0 for one in row] for row in solved],
            "attacked": [[True] * len(EPSILONS)] * count,
            "forward": queries,
            "backward": 0,
            "queries": queries,
            "solved": solved,
        }
    )


FOUR = records([[0, 3], [0, 0], [40, 7], [0, 100]], [100, 100, 40, 100])


def test_the_curve_is_what_one_counts_by_hand():
    curve = query_curve(FOUR, EPSILONS, 100)
    assert (curve["n_attacked"] == 4).all()
    for epsilon, falls in (("0.1", [40]), ("0.2", [3, 7, 100])):
        rows = curve[curve["epsilon"] == epsilon]
        asked = rows["queries"].tolist()
        assert (asked[0], asked[-1]) == (1, 100)
        assert asked == sorted(set(asked))
        for row in rows.itertuples():
            count = sum(one <= row.queries for one in falls)
            assert (row.successes, row.success_rate) == (count, count / 4)
            ends = binomtest(count, 4).proportion_ci(method="wilson")
            assert (row.ci_low, row.ci_high) == pytest.approx((ends.low, ends.high))


@pytest.mark.parametrize("budget", [1, 2, 1000, 20_000])
def test_a_curve_stays_short_and_ends_at_the_budget(budget):
    curve = query_curve(FOUR, EPSILONS, budget)
    each = curve.groupby("epsilon")["queries"]
    assert (each.max() == budget).all()
    assert (each.count() <= 40).all()


def test_the_summary_has_both_denominators():
    summary = query_summary(FOUR, EPSILONS, 200)
    assert summary.loc["0.1"].tolist() == [40, 40, (40 + 3 * 200) / 4, 200]
    assert summary.loc["0.2"].tolist() == [110 / 3, 7, (110 + 200) / 4, (7 + 100) / 2]


def test_without_a_budget_what_was_not_broken_counts_what_was_spent_on_it():
    summary = query_summary(FOUR, EPSILONS)
    assert summary.loc["0.1", "censored_queries_mean"] == (40 + 3 * 100) / 4
    assert query_curve(FOUR, EPSILONS)["queries"].max() == 100


def test_nobody_under_attack_and_nobody_broken():
    nobody = records([[0, 0]] * 2, [0, 0], under=[False, False])
    assert query_curve(nobody, EPSILONS, 10).empty
    assert query_summary(nobody, EPSILONS, 10).isna().all(axis=None)
    robust = query_summary(records([[0, 0]] * 2, [9, 9]), EPSILONS, 10)
    assert robust["success_queries_mean"].isna().all()
    assert robust["censored_queries_median"].tolist() == [10, 10]


def test_an_adversarial_example_that_did_not_hold_is_no_success():
    not_reproduced = records([[0, 5], [0, 5]], [5, 5], broken=[[False, False], [False, True]])
    assert query_curve(not_reproduced, EPSILONS, 10)["successes"].max() == 1


def cell(of=FOUR, **about):
    about = {
        "dataset": "digits", "n_examples": len(of), "model": "resnet", "defense": "none",
        "attack": "square", "access": "score", "norm": "Linf", "epsilons": EPSILONS,
        "epsilon_values": [0.1, 0.2], "leaderboard_epsilon": "0.1", "seed": 0, "seconds": 1.0,
        "device": "cpu", "dtype": "float32", "flags": [], "report": {"setup_queries": 5.0},
        "parameters": 1, "key": "k", "weights_hash": "w", "search": "bracket",
        "query_budget": 100,
    } | about  # fmt: skip
    return Cell(about, of)


def test_the_table_has_the_black_box_attacks_alone():
    old = cell(FOUR.drop(columns="solved"), attack="old")
    table = queries([cell(), cell(attack="pgd", access="white-box"), old])
    assert list(table.columns) == QUERIES_COLUMNS
    assert set(table["attack"]) == {"square"}
    assert (table["setup_queries"] == 5).all()
    assert (table["query_budget"] == 100).all()
    assert queries([]).empty


def test_the_tradeoff_has_the_summary_where_it_means_something():
    table = tradeoff([cell(), cell(attack="pgd", access="white-box", key="k2")])
    by = table.set_index(["attack", "epsilon"])
    assert by.loc[("square", "0.2"), "success_queries_median"] == 7
    assert by.loc[("square", "0.2"), "censored_queries_mean"] == 210 / 4
    for attack in ("pgd", "worst-case"):
        assert math.isnan(by.loc[(attack, "0.2"), "success_queries_median"])
    assert "solved" not in worst_case([cell()]).records


SUITE = """
dataset = "digits"
n_examples = 12
epsilons = [0.1, 0.3]

[[models]]
name = "small-cnn"

[[defenses]]
name = "none"
epochs = 1
augmentation = "none"

[[attacks]]
name = "square"
query_budget = 40

[[attacks]]
name = "fgsm"
"""


def test_a_run_writes_them(tmp_path, quintain, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite.toml").write_text(SUITE)
    assert quintain("run", "suite.toml", "--out", "out", "--device", "cpu").code == 0
    table = read_table(tmp_path / "out" / "queries.csv")
    assert list(table.columns) == QUERIES_COLUMNS
    assert set(table["attack"]) == {"square"}
    assert table.groupby("epsilon")["queries"].max().tolist() == [40, 40]
    last = table[table["queries"] == 40].set_index("epsilon")["success_rate"]
    rows = read_table(tmp_path / "out" / "tradeoff.csv")
    rows = rows[rows["attack"] == "square"].set_index("epsilon")
    assert last.to_dict() == rows["attack_success_rate"].to_dict()
    assert '"queries.csv"' in (tmp_path / "out" / "manifest.json").read_text()


def test_evaluate_gives_them(digits):
    x, y = digits.images[:30], digits.labels[:30]
    result = evaluate(digits.module, x, y, {"name": "square", "steps": 200}, norm="L2",
                      epsilons=[0.8], query_budget=60)  # fmt: skip
    curve, summary = result.queries, result.query_summary
    assert curve["queries"].max() == 60
    assert curve["success_rate"].is_monotonic_increasing
    assert curve["success_rate"].iloc[-1] == result.curve["attack_success_rate"].item()
    falls = np.array([one[0] for one in result.records["solved"]])
    assert summary["success_queries_median"].item() == np.median(falls[falls > 0])
    assert summary["censored_queries_mean"].item() > summary["success_queries_mean"].item()
