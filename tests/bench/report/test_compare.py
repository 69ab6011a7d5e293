"""Two rows on the same examples."""

import json

import pandas as pd
import pytest
from scipy.stats import binomtest

from quintain.bench.report.compare import compare_runs
from quintain.bench.store.records import read_cell

WEAKER = """
[[defenses]]
name = "none"
label = "none"
epochs = 1
batch_size = 32
augmentation = "none"
"""


@pytest.fixture
def runs(quintain, write_suite, tmp_path):
    """Two runs on the same examples, the second of a network that was trained for less long."""
    first, second = tmp_path / "first", tmp_path / "second"
    options = {"epsilons": '["2/255", "8/255"]', "leaderboard_epsilon": '"2/255"', "n_examples": 60}
    assert quintain("run", write_suite("one.toml", **options), "--out", first).code == 0
    weaker = write_suite("two.toml", defenses=WEAKER, **options)
    assert quintain("run", weaker, "--out", second).code == 0
    return first, second


def withstood(directory, point=0):
    """By index, whether an example withstands all attacks, from the records themselves."""
    kept = {}
    for entry in json.loads((directory / "manifest.json").read_text())["cells"]:
        records = read_cell(directory / entry["file"]).records
        for one in records.to_dict("records"):
            right = one["clean_prediction"] == one["label"]
            robust = right and not any(one["broken"][: point + 1])
            kept[one["index"]] = kept.get(one["index"], True) and robust
    return kept


def test_the_comparison_is_of_each_example(runs):
    before, after = (withstood(one) for one in runs)
    gained = sum(after[one] and not before[one] for one in before)
    lost = sum(before[one] and not after[one] for one in before)
    [pair] = compare_runs(runs)
    assert (pair.compared.only_first, pair.compared.only_second) == (gained, lost)
    assert lost > 0
    assert pair.compared.p_value == pytest.approx(binomtest(lost, lost + gained).pvalue)
    one_sided = binomtest(lost, lost + gained, alternative="greater").pvalue
    assert pair.worse_p == pytest.approx(one_sided)
    assert pair.is_worse == (one_sided < 0.05)
    assert len(pair.changed) == lost + gained
    [back] = compare_runs(runs[::-1])
    assert back.compared.difference.value == -pair.compared.difference.value


def test_the_command_says_it_and_fails_where_asked(runs, quintain, tmp_path):
    [pair] = compare_runs(runs)
    answer = quintain("compare", *runs, "--output", tmp_path / "changed.csv")
    assert answer.code == 0
    assert f"{pair.compared.only_second} lost" in answer.out
    changed = pd.read_csv(tmp_path / "changed.csv")
    assert changed["index"].tolist() == pair.changed["index"].tolist()
    assert quintain("compare", *runs, "--fail-if-worse").code == int(pair.is_worse)
    assert pair.is_worse  # else the line above shows nothing
    assert quintain("compare", *runs[::-1], "--fail-if-worse").code == 0
    single = quintain("compare", *runs, "--attack", "fgsm", "--epsilon", "8/255")
    assert "at 8/255" in single.out


def test_two_rows_of_one_run(runs, quintain):
    row = "resnet x none"
    answer = quintain("compare", runs[0], "--row", row, "--row", row)
    assert "0 of 60 examples changed" in answer.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["A"], "--row twice"),
        (["A", "B", "A"], "one pair at a time"),
        (["A", "B", "--row", "resnet x nome"], "resnet x none"),
        (["A", "B", "--epsilon", "0.03"], "there are 2/255, 8/255"),
        (["A", "B", "--attack", "pgdd"], "pgd"),
        (["A", "nowhere"], "not a run directory"),
    ],
)
def test_mistakes_are_answered_in_a_line(runs, quintain, arguments, said):
    named = dict(zip("AB", runs, strict=True))
    answer = quintain("compare", *(named.get(one, one) for one in arguments))
    assert answer.code == 2
    assert said in answer.error


def test_other_examples_do_not_compare(runs, quintain, write_suite, tmp_path):
    other = write_suite("other.toml", n_examples=20, epsilons='["2/255", "8/255"]')
    assert quintain("run", other, "--out", tmp_path / "other").code == 0
    answer = quintain("compare", runs[0], tmp_path / "other", "--epsilon", "2/255")
    assert answer.code == 2
    assert "other examples" in answer.error
