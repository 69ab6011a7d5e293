import math

import pandas as pd
import pytest

from quintain.bench.report.tables import (
    LEADERBOARD_COLUMNS,
    TRADEOFF_COLUMNS,
    curve_of,
    leaderboard,
    tradeoff,
    worst_case,
)
from quintain.bench.store.cell import Cell, Lost

EPSILONS = ["8/255", "0.10", "0.20"]
VALUES = [8 / 255, 0.1, 0.2]

# What others script against, as it was promised.
TRADEOFF = (
    "dataset,n_examples,model,defense,attack,access,norm,epsilon,clean_accuracy,robust_accuracy,"
    "ci_low,ci_high,attack_success_rate,forward_mean,backward_mean,queries_mean,queries_median,"
    "verified,flags,seed,seconds,device,dtype"
)
LEADERBOARD = (
    "rank,dataset,model,defense,norm,epsilon,n_examples,clean_accuracy,robust_accuracy,"
    "ci_low,ci_high,curve_area,attacks,flags,parameters,config_hash,weights_hash"
)


def wilson(successes, trials, z=1.959963984540054):
    """Wilson's interval, from the formula in his paper."""
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    spread = share * (1 - share) / trials + z * z / (4 * trials**2)
    half = z * math.sqrt(spread) / (1 + z * z / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def make(broken, wrong=(), costs=None, order=None, **about):
    """Make a cell from rows such as "011": where each example is broken."""
    rows = []
    for index, pattern in enumerate(broken):
        under = index not in wrong
        forward, backward, queries = costs[index] if costs else (10, 5, 10)
        rows.append(
            {
                "index": 100 + index,
                "label": 1,
                "clean_prediction": 1 if under else 0,
                "under_attack": under,
                "broken": [one == "1" for one in pattern],
                "attacked": [under and point == 0 for point in range(len(pattern))],
                "forward": forward if under else 0,
                "backward": backward if under else 0,
                "queries": queries if under else 0,
            }
        )
    records = pd.DataFrame(rows)
    if order is not None:
        records = records.iloc[list(order)].reset_index(drop=True)
    about = {
        "dataset": "digits",
        "n_examples": len(records),
        "model": "resnet",
        "defense": "none",
        "attack": "pgd",
        "access": "white-box",
        "norm": "Linf",
        "epsilons": EPSILONS,
        "epsilon_values": VALUES,
        "leaderboard_epsilon": "0.10",
        "seed": 0,
        "seconds": 1.5,
        "device": "cpu",
        "dtype": "float32",
        "flags": [],
        "report": {},
        "parameters": 4934,
        "key": "k1",
        "weights_hash": "w1",
    } | about
    return Cell(about, records)


# Five examples: one wrong when clean, one broken from each point of the grid on, one never.
FIVE = ["000", "111", "011", "001", "000"]


def five(**about):
    costs = [(9, 9, 9), (2, 1, 2), (4, 2, 4), (6, 3, 6), (100, 50, 100)]
    return make(FIVE, wrong={0}, costs=costs, **about)


def test_the_columns_are_those_that_were_promised_and_ours_come_after():
    ours = "attacked,setup_queries,fidelity,success_queries_mean,success_queries_median"
    ours += ",censored_queries_mean,censored_queries_median"
    assert ",".join(TRADEOFF_COLUMNS) == f"{TRADEOFF},{ours}"
    assert ",".join(LEADERBOARD_COLUMNS) == (
        f"{LEADERBOARD},certified_accuracy,examples_hash,attacks_hash,rank_low,rank_high,tie_group,"
        "curve_area_low,curve_area_high,median_epsilon,median_epsilon_low,median_epsilon_high"
    )
    assert list(tradeoff([five()]).columns) == TRADEOFF_COLUMNS
    assert list(leaderboard([five()]).columns) == LEADERBOARD_COLUMNS


def test_a_curve_is_what_one_counts_by_hand():
    curve = curve_of(five().records, EPSILONS)
    assert curve["epsilon"].tolist() == EPSILONS
    assert curve["n_examples"].tolist() == [5] * 3
    assert curve["clean_accuracy"].tolist() == [0.8] * 3
    assert curve["robust_accuracy"].tolist() == [3 / 5, 2 / 5, 1 / 5]
    assert curve["attack_success_rate"].tolist() == [1 / 4, 2 / 4, 3 / 4]
    assert curve["verified"].tolist() == [1, 2, 3]
    assert curve["forward_mean"].tolist() == [112 / 4] * 3
    assert curve["backward_mean"].tolist() == [56 / 4] * 3
    assert curve["queries_mean"].tolist() == [112 / 4] * 3
    assert curve["queries_median"].tolist() == [5.0] * 3  # of 2, 4, 6, 100
    assert curve["attacked"].tolist() == [1.0, 0.0, 0.0]
    for row, robust in zip(curve.itertuples(), (3, 2, 1), strict=True):
        assert (row.ci_low, row.ci_high) == pytest.approx(wilson(robust, 5), abs=1e-12)


def test_misclassified_examples_are_not_robust_and_no_success():
    curve = curve_of(make(["000"] * 4, wrong={0, 1, 2, 3}).records, EPSILONS)
    assert curve["clean_accuracy"].tolist() == [0.0] * 3
    assert curve["robust_accuracy"].tolist() == [0.0] * 3
    assert curve["attack_success_rate"].isna().all()
    assert curve["queries_median"].isna().all()


def test_the_worst_case_is_taken_for_each_example():
    first = make(["001", "000", "011", "000"], attack="pgd", key="k1")
    second = make(
        ["000", "111", "001", "000"], attack="square", access="score", key="k2", order=[3, 1, 0, 2]
    )
    worst = worst_case([first, second])
    assert worst.about["attack"] == "worst-case"
    assert worst.about["access"] == "score+white-box"
    assert worst.about["seconds"] == 3.0
    curve = curve_of(worst.records, EPSILONS)
    assert curve["robust_accuracy"].tolist() == [3 / 4, 2 / 4, 1 / 4]
    assert curve["forward_mean"].tolist() == [20.0] * 3
    # What went in is left as it was.
    assert curve_of(first.records, EPSILONS)["robust_accuracy"].tolist() == [1.0, 0.75, 0.5]


def test_the_worst_case_takes_in_what_breaks_at_a_smaller_epsilon():
    """The curve of a single step may go up again; the best of all attacks cannot."""
    step, other = make(["100", "010", "000"]), make(["000", "000", "001"])
    worst = worst_case([step, other]).records["broken"]
    assert [list(one) for one in worst] == [
        [True, True, True], [False, True, True], [False, False, True],
    ]  # fmt: skip
    assert list(worst_case([step]).records["broken"].iloc[0]) == [True] * 3
    white, black = make(["100"], access="white-box"), make(["111"], access="score")
    assert worst_case([white, black]).about["flags"] == []  # the step's find holds above too


def test_rows_of_one_example_meet_whatever_their_order():
    costs = [(1, 1, 1), (10, 10, 10), (100, 100, 100), (1000, 1000, 1000)]
    straight = make(["000", "111", "001", "011"], costs=costs)
    turned = make(["000", "111", "001", "011"], costs=costs, order=[2, 0, 3, 1])
    worst = worst_case([straight, turned])
    assert worst.records["forward"].tolist() == [2, 20, 200, 2000]
    assert worst.records["index"].tolist() == [100, 101, 102, 103]
    assert [sum(one) for one in worst.records["broken"]] == [0, 3, 1, 2]


def test_the_tradeoff_has_a_row_for_each_attack_and_epsilon_and_the_worst_case():
    table = tradeoff([five(), five(attack="fgsm", flags=["b", "a"], key="k2")])
    assert table["attack"].tolist() == ["pgd"] * 3 + ["fgsm"] * 3 + ["worst-case"] * 3
    assert table["epsilon"].tolist() == EPSILONS * 3
    assert table["flags"].tolist() == [""] * 3 + ["b;a"] * 3 + ["a;b"] * 3
    assert table["setup_queries"].tolist() == [0] * 9
    assert table["fidelity"].isna().all()
    reported = tradeoff([five(report={"setup_queries": 50.0, "fidelity": 0.75})])
    assert reported["setup_queries"].tolist()[:3] == [50] * 3
    assert reported["fidelity"].tolist()[:3] == [0.75] * 3


def test_a_failed_attack_has_no_row_and_flags_the_worst_case():
    lost = Lost("digits", "Linf", "resnet", "none", "square")
    elsewhere = Lost("digits", "Linf", "alexnet", "none", "fgsm")
    table = tradeoff([five()], [lost, elsewhere])
    assert "square" not in set(table["attack"])
    assert table[table["attack"] == "pgd"]["flags"].tolist() == [""] * 3
    assert table[table["attack"] == "worst-case"]["flags"].tolist() == ["failed:square"] * 3
    board = leaderboard([five()], [lost, elsewhere])
    assert board["flags"].tolist() == ["failed:square"]
    assert board["attacks"].tolist() == ["pgd"]


def test_black_box_attacks_that_do_better_are_a_flag():
    white = make(["000"] * 20)
    few = make(["001"] + ["000"] * 19, access="score", attack="square", key="k2")
    many = make(["001"] * 2 + ["000"] * 18, access="decision", attack="boundary", key="k3")
    assert worst_case([white, few]).about["flags"] == []
    assert worst_case([white, many]).about["flags"] == ["black-box-beats-white-box:2"]
    assert worst_case([white, few, many]).about["flags"] == ["black-box-beats-white-box:2"]
    assert worst_case([many]).about["flags"] == []
    helped = make(["011"] * 2 + ["000"] * 18, attack="margin", key="k4")
    assert worst_case([white, many, helped]).about["flags"] == []


def test_a_standing_is_what_one_counts_by_hand():
    row = leaderboard([five(key="kb"), five(attack="fgsm", key="ka")]).iloc[0]
    assert (row["rank"], row["epsilon"], row["n_examples"]) == (1, "0.10", 5)
    assert (row["clean_accuracy"], row["robust_accuracy"]) == (0.8, 0.4)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(wilson(2, 5), abs=1e-12)
    assert (row["attacks"], row["parameters"], row["weights_hash"]) == ("pgd;fgsm", 4934, "w1")
    at = [0.0, *VALUES]
    heights = [0.8, 0.6, 0.4, 0.2]
    area = sum((at[i + 1] - at[i]) * (heights[i] + heights[i + 1]) / 2 for i in range(3)) / 0.2
    assert row["curve_area"] == pytest.approx(area, abs=1e-12)


def test_one_attack_gives_its_key_and_several_a_name_that_does_not_depend_on_their_order():
    one, two = five(key="ka"), five(attack="fgsm", key="kb")
    assert leaderboard([one])["config_hash"].item() == "ka"
    joint = leaderboard([one, two])["config_hash"].item()
    assert joint == leaderboard([two, one])["config_hash"].item()
    assert joint not in ("ka", "kb")
    assert joint != leaderboard([one, five(attack="x", key="kc")])["config_hash"].item()


def test_ranks_follow_robust_accuracy_then_area_then_clean_accuracy_then_name():
    def model(name, broken, **more):
        return make(broken, model=name, weights_hash=name, **more)

    cells = [
        model("c-area", ["001", "001", "011", "111"]),
        model("best", ["000", "000", "001", "111"]),
        model("z-same", ["001", "001", "011", "011"]),
        model("a-same", ["001", "001", "011", "011"]),
    ]
    board = leaderboard(cells)
    assert board["model"].tolist() == ["best", "a-same", "z-same", "c-area"]
    assert board["rank"].tolist() == [1, 2, 2, 2]  # only robust accuracy counts
    assert board["robust_accuracy"].tolist() == [0.75, 0.5, 0.5, 0.5]


def test_clean_accuracy_breaks_the_last_tie():
    cells = [
        make(["0", "1"], wrong={1}, model="a", epsilons=["0.5"], epsilon_values=[0.5]),
        make(["0", "1"], model="b", epsilons=["0.5"], epsilon_values=[0.5]),
    ]
    for cell in cells:
        cell.about["leaderboard_epsilon"] = "0.5"
    board = leaderboard(cells)
    assert board["clean_accuracy"].tolist() == [1.0, 0.5]
    assert board["model"].tolist() == ["b", "a"]


def test_each_threat_is_ranked_on_its_own():
    cells = [
        five(),
        make(["000"] * 5, model="alexnet", weights_hash="w2"),
        five(norm="L2", leaderboard_epsilon="0.20"),
        five(dataset="mnist"),
        five(model="at 8/255", leaderboard_epsilon="8/255", weights_hash="w3"),
    ]
    board = leaderboard(cells)
    ranks = board.set_index(["dataset", "norm", "epsilon", "model"])["rank"].to_dict()
    assert ranks == {
        ("digits", "L2", "0.20", "resnet"): 1,
        ("digits", "Linf", "0.10", "alexnet"): 1,
        ("digits", "Linf", "0.10", "resnet"): 2,
        ("digits", "Linf", "8/255", "at 8/255"): 1,
        ("mnist", "Linf", "0.10", "resnet"): 1,
    }


@pytest.mark.parametrize(
    "other",
    [
        {"weights_hash": "w2"},
        {"seed": 1},
        {"epsilons": ["0.05", "0.10", "0.20"], "epsilon_values": [0.05, 0.1, 0.2]},
    ],
)
def test_runs_that_cannot_be_combined_stay_apart(other):
    board = leaderboard([five(), five(attack="fgsm", key="k2", **other)])
    assert sorted(board["attacks"]) == ["fgsm", "pgd"]
    assert board["rank"].tolist() == [1, 1]  # other attacks: these rows do not compare
    assert board["attacks_hash"].nunique() == 2


def test_runs_over_other_examples_stay_apart():
    more = make(["111"] * 7, attack="fgsm", key="k2")
    board = leaderboard([five(), more])
    assert sorted(board["n_examples"]) == [5, 7]
    moved = five(attack="fgsm", key="k2")
    moved.records["index"] += 1
    assert len(leaderboard([five(), moved])) == 2
    assert len(leaderboard([five(), five(attack="fgsm", key="k2")])) == 1


def test_a_csv_gives_back_every_epsilon_as_it_was_written():
    epsilons = ["8/255", "0.10", "1e-1 ".strip() + "0"]
    table = tradeoff([five(epsilons=epsilons, leaderboard_epsilon="0.10")])
    text = table.to_csv(index=False)
    lines = [line.split(",") for line in text.splitlines()]
    at = lines[0].index("epsilon")
    assert [line[at] for line in lines[1:4]] == epsilons


def test_ranks_count_larger_accuracies_alone():
    accuracies = {"a": "000", "b": "001", "c": "001", "d": "111"}
    cells = [make([one] * 4, model=name, weights_hash=name) for name, one in accuracies.items()]
    for cell in cells:
        cell.about["leaderboard_epsilon"] = EPSILONS[-1]
    cells[1].records["broken"] = [[False, False, one == 0] for one in range(4)]
    cells[2].records["broken"] = [[False, one == 0, one == 0] for one in range(4)]
    board = leaderboard(cells)
    assert board["model"].tolist() == ["a", "b", "c", "d"]
    assert board["rank"].tolist() == [1, 2, 2, 4]


def test_a_model_without_any_cell_has_a_row_without_numbers():
    gone = [
        Lost("digits", "Linf", "alexnet", "none", name, why, "0.10", "recipe")
        for name, why in (("pgd", "failed"), ("fgsm", "missing"))
    ]
    board = leaderboard([five()], gone)
    assert sorted(board["model"]) == ["alexnet", "resnet"]
    row = board[board["model"] == "alexnet"].iloc[0]
    assert row["flags"] == "failed:pgd;missing:fgsm"
    assert pd.isna(row["rank"])
    assert pd.isna(row["robust_accuracy"])


def test_what_an_interrupted_run_lacks_is_a_flag_and_ranks_below():
    whole = [five(recipe="r1"), five(attack="fgsm", key="k2", recipe="r2")]
    half = make(["000"] * 5, model="half", weights_hash="h", recipe="r1")
    lost = Lost("digits", "Linf", "half", "none", "fgsm", "missing", "0.10", "r2")
    board = leaderboard([*whole, half], [lost])
    assert board["model"].tolist() == ["resnet", "half"]
    assert board["rank"].tolist() == [1, 2]
    assert board["flags"].tolist() == ["", "missing:fgsm"]


@pytest.mark.parametrize("changed", [{"recipe": "r9"}, {"examples": "other"}])
def test_what_does_not_compare_is_ranked_apart(changed):
    about = {"recipe": "r1", "examples": "e"}
    other = make(["000"] * 5, model="other", weights_hash="o", **{**about, **changed})
    assert leaderboard([five(**about), other])["rank"].tolist() == [1, 1]
    same = make(["000"] * 5, model="other", weights_hash="o", **about)
    assert leaderboard([five(**about), same])["rank"].tolist() == [1, 2]


def test_one_epsilon_in_two_spellings_is_ranked_together():
    def spelled(text, **about):
        epsilons = ["0.05", text, "0.20"]
        return five(epsilons=epsilons, leaderboard_epsilon=text, **about)

    cells = [spelled("0.1"), spelled("0.10", model="other", weights_hash="o")]
    board = leaderboard(cells)
    assert sorted(board["epsilon"]) == ["0.1", "0.10"]
    assert board["rank"].tolist() == [1, 1]
    assert len(board["attacks_hash"].unique()) == 1
