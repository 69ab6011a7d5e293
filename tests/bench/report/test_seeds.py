import pandas as pd
import pytest

from quintain.bench.report.seeds import over_trainings, trainings_summary


def board(**robust):
    return pd.DataFrame(
        {
            "dataset": "digits", "norm": "Linf", "epsilon": "8/255", "model": robust.keys(),
            "defense": "none", "n_examples": 100, "clean_accuracy": 0.9,
            "robust_accuracy": robust.values(),
        }
    )  # fmt: skip


def test_means_and_spreads_are_of_trainings_and_the_sampling_error_is_apart():
    table = over_trainings({0: board(a=0.4, b=0.7), 1: board(a=0.6, b=0.7), 5: board(b=0.7, a=0.5)})
    assert table["model"].tolist() == ["b", "a"]
    first, second = table.to_dict("records")
    assert (second["robust_accuracy"], second["robust_accuracy_sd"]) == pytest.approx((0.5, 0.1))
    assert (second["robust_accuracy_least"], second["robust_accuracy_most"]) == (0.4, 0.6)
    reach = 4.302653 * 0.1 / 3**0.5  # Student's, of three
    assert second["robust_accuracy_low"] == pytest.approx(0.5 - reach, abs=1e-6)
    assert (first["robust_accuracy_sd"], first["trainings"]) == (pytest.approx(0.0), 3)
    assert first["sampling_error"] == pytest.approx((0.7 * 0.3 / 100) ** 0.5)
    assert "0.500 +- 0.100" in trainings_summary(table)


def test_networks_are_trained_again_and_attacked_on_the_same_examples(
    quintain, write_suite, tmp_path
):
    suite = write_suite(seeds="[3, 4]")
    answer = quintain("run", suite, "--out", tmp_path / "runs")
    assert answer.code == 0, answer.err
    boards = [pd.read_csv(tmp_path / "runs" / f"seed-{one}" / "leaderboard.csv") for one in (3, 4)]
    weights = {one["weights_hash"].iloc[0] for one in boards}
    assert len(weights) == 2
    assert len({one["examples_hash"].iloc[0] for one in boards}) == 1
    table = pd.read_csv(tmp_path / "runs" / "seeds.csv")
    expected = sum(one["robust_accuracy"].iloc[0] for one in boards) / 2
    assert table["robust_accuracy"].tolist() == [pytest.approx(expected)]
    assert "Over trainings" in answer.out
    again = quintain("run", suite, "--out", tmp_path / "runs")
    assert again.out.count("were there already") == 2
    single = quintain("run", suite, "--training-seed", 4, "--out", tmp_path / "single")
    assert single.code == 0
    only = pd.read_csv(tmp_path / "single" / "leaderboard.csv")
    assert only["weights_hash"].iloc[0] == boards[1]["weights_hash"].iloc[0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"seeds": "[1]"}, "two or more"),
        ({"seeds": "[1, 1]"}, "two or more"),
        ({"seeds": "[0, 1]", "training_seed": 3}, "leave one of the two out"),
        ({"seeds": "[-1, 1]"}, "seeds"),
    ],
)
def test_seeds_that_cannot_be_are_refused(quintain, write_suite, tmp_path, keys, said):
    answer = quintain("run", write_suite(**keys), "--out", tmp_path / "runs")
    assert answer.code == 2
    assert said in answer.error
