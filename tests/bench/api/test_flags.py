"""Flags: texts to people and scripts, values to code; one table of kinds says everything else."""

import copy
import doctest
import json
import pickle

import pandas as pd
import pytest
from torch import nn

from quintain.bench.api import flags
from quintain.bench.api.defense import Trained
from quintain.bench.api.errors import RunDirectoryError
from quintain.bench.api.flags import KINDS, Flag, combined, raised, read_column, read_flags, stored
from quintain.bench.report.tables import worst_case
from quintain.bench.store.cell import Cell
from quintain.bench.store.records import read_cell, write_cell
from quintain.bench.tools.results_page import flags_table

ONE_OF_EACH = (
    Flag("no-progress", count=3),
    Flag("vanishing-gradients", share=0.344),
    Flag("failed", about="pgd (next)"),
    Flag("did-not-learn", about="did not learn: validation accuracy 0.100"),
)
TEXTS = (
    "no-progress:3",
    "vanishing-gradients:34%",
    "failed:pgd (next)",
    "did not learn: validation accuracy 0.100",
)


def test_a_flag_is_the_text_it_always_was_and_says_what_it_means():
    assert ONE_OF_EACH == TEXTS
    assert ";".join(ONE_OF_EACH) == ";".join(TEXTS)
    assert "no-progress:3" in ONE_OF_EACH
    assert {*ONE_OF_EACH} == {*TEXTS}
    count, share, attack, sentence = ONE_OF_EACH
    assert (count.name, count.count, count.share, count.about) == ("no-progress", 3, None, None)
    assert (share.share, attack.about, sentence.about) == (0.344, "pgd (next)", TEXTS[3])
    assert (sentence.name, sentence.scope) == ("did-not-learn", "training")
    assert "ended at the clean image" in count.meaning
    assert "step size" in count.remedy


def test_the_example_in_the_module_is_true():
    assert doctest.testmod(flags).failed == 0
    assert doctest.testmod(flags).attempted > 0


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Flag("no-progres", count=3), "no flag is called 'no-progres'"),
        (lambda: Flag("no-progress", share=0.5), "flag 'no-progress' has count, and nothing else"),
        (lambda: Flag("failed"), "flag 'failed' has about, and nothing else"),
        (lambda: Flag("no-progress", count=3, about="pgd"), "has count, and nothing else"),
        (lambda: read_flags([{"name": "no-progress", "count": "many"}]), "many"),
    ],
)
def test_what_the_table_does_not_declare_is_refused(make, line):
    with pytest.raises(ValueError, match=line):
        make()


def test_copies_keep_their_attributes():
    for made in (pickle.loads(pickle.dumps(ONE_OF_EACH)), copy.deepcopy(ONE_OF_EACH)):
        assert made == TEXTS
        assert [vars(one) for one in made] == [vars(one) for one in ONE_OF_EACH]


def test_files_hold_names_and_numbers_and_give_the_same_flags_back():
    held = json.loads(json.dumps(stored(ONE_OF_EACH)))
    assert held[:2] == [
        {"name": "no-progress", "count": 3},
        {"name": "vanishing-gradients", "share": 0.344},
    ]
    assert [vars(one) for one in read_flags(held)] == [vars(one) for one in ONE_OF_EACH]


def test_texts_of_older_files_are_read():
    count, share, attack, sentence = read_flags(TEXTS)
    assert (count.name, count.count) == ("no-progress", 3)
    assert (share.name, share.share) == ("vanishing-gradients", 0.34)
    assert (attack.name, attack.about) == ("failed", "pgd (next)")
    assert (sentence.name, sentence.about) == ("training", TEXTS[3])
    odd = ["no-progress:some", "vanishing-gradients:x%", "failed:", "no-progress"]
    assert read_flags(odd) == tuple(odd)
    assert {one.name for one in read_flags(odd)} == {"training"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_comes_back_from_a_file_and_from_a_table(kind):
    measure = {"count": {"count": 60}, "share": {"share": 0.6}}
    flag = Flag(kind.name, **measure.get(kind.measure, {"about": "square"}))
    assert [vars(one) for one in read_flags(stored([flag]))] == [vars(flag)]
    assert read_column(f"{flag};other") == (flag, "other")
    if kind.measure != "sentence":
        assert vars(read_column(flag)[0]) == vars(flag)
    assert f"`{kind.name}" in flags_table()


def test_an_attack_that_is_lacking_leaves_a_row_incomplete_and_certificates_do_not():
    shown = {one: one.incomplete for one in read_column("failed:pgd;missing:a;failed:certified;b")}
    assert shown == {"failed:pgd": True, "missing:a": True, "failed:certified": False, "b": False}


def test_few_are_not_worth_a_flag_where_the_kind_says_so():
    assert raised("no-progress", count=0) == ()
    assert raised("no-progress", count=1, of=1000) == ("no-progress:1",)
    assert raised("vanishing-gradients", share=0.1) == ()
    assert raised("vanishing-gradients", share=0.11) == ("vanishing-gradients:11%",)


NO_PROGRESS = ["no-progress:1", "no-progress:2"]
ENDED = ["query-budget-exhausted:1", "query-budget-exhausted:3"]
WRONG = ["contradicted-certificates:2", "contradicted-certificates:3"]
BEATEN = ["black-box-beats-white-box:9", "black-box-beats-white-box:11"]


@pytest.mark.parametrize(
    ("attacks", "own", "expected"),
    [
        ([NO_PROGRESS[:1], [*NO_PROGRESS[1:], "so-so"]], [], [*NO_PROGRESS, "so-so"]),
        ([ENDED[:1], []], [], []),
        ([ENDED[:1], ENDED[1:]], [], ENDED),
        ([WRONG[:1], []], [], []),
        ([WRONG[:1]], WRONG[1:], WRONG[1:]),
        ([BEATEN[:1]], BEATEN[1:], BEATEN[1:]),
        ([BEATEN[1:], BEATEN[:1]], [], BEATEN[1:]),
        ([["failed:fgsm"]], ["failed:pgd"], ["failed:pgd"]),
    ],
)
def test_the_kind_says_which_flags_the_worst_case_has(attacks, own, expected):
    assert list(combined([(one, False) for one in attacks], own)) == expected


def test_a_naive_attack_that_was_blind_says_nothing_against_the_worst_case():
    blind = [one for one in KINDS if not one.naive]
    texts = [f"{one.name}:60%" if one.measure == "share" else f"{one.name}:60" for one in blind]
    assert len(texts) == 5
    assert combined([(texts, True)]) == ()
    assert combined([(texts, False)]) == tuple(sorted(texts))
    assert combined([(["rounded-outputs:100%"], True)]) == ("rounded-outputs:100%",)


def cell(**about):
    shared = {
        "attack": "pgd",
        "access": "white-box",
        "seconds": 1.0,
        "report": {},
        "epsilons": ["1"],
    }
    records = pd.DataFrame(
        {
            "index": [0], "label": [1], "clean_prediction": [1], "under_attack": True,
            "broken": [[False]], "attacked": [[True]], "forward": 1, "backward": 1, "queries": 1,
        }
    )  # fmt: skip
    return Cell({**shared, **about}, records)


def test_records_hold_flags_as_values_and_older_ones_are_read(tmp_path, monkeypatch):
    write_cell(tmp_path / "new.parquet", cell(flags=list(ONE_OF_EACH)))
    monkeypatch.setattr("quintain.bench.store.records.stored", list)  # as before
    write_cell(tmp_path / "old.parquet", cell(flags=list(TEXTS)))
    new, old = (read_cell(tmp_path / f"{one}.parquet") for one in ("new", "old"))
    assert tuple(new.about["flags"]) == tuple(old.about["flags"]) == TEXTS
    assert new.about["flags"][1].share == 0.344
    assert old.about["flags"][1].share == 0.34
    assert worst_case([old]).about["flags"] == sorted({*TEXTS} - {"failed:pgd (next)"})


def test_a_record_whose_flags_are_nothing_of_ours_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr("quintain.bench.store.records.stored", list)
    write_cell(tmp_path / "odd.parquet", cell(flags=[{"name": "no-such"}]))
    with pytest.raises(RunDirectoryError, match="no flag is called 'no-such'"):
        read_cell(tmp_path / "odd.parquet")


def test_what_a_defense_says_of_its_training_becomes_a_flag():
    (flag,) = Trained(nn.Identity(), flags=("so-so",)).flags
    assert (flag, flag.name, flag.scope) == ("so-so", "training", "training")
