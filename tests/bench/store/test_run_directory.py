import json

import pandas as pd
import pytest
from filelock import FileLock

from quintain.bench.api.errors import RunDirectoryError
from quintain.bench.store.cell import Cell
from quintain.bench.store.records import write_cell
from quintain.bench.store.run_directory import RunDirectory, opened, read_cells, read_manifest

SUITE = {"seed": 0, "attacks": [{"name": "fgsm"}, {"name": "pgd", "steps": 20}]}


def enter(path, suite=SUITE, text="text", *, update=False):
    with opened(path, suite, text, update=update) as directory:
        directory.write_manifest({"suite": suite, "cells": []})
        return directory


def refused(path, says, suite=SUITE, text="text", *, update=False):
    with pytest.raises(RunDirectoryError) as caught, opened(path, suite, text, update=update):
        pass
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_new_directory_is_made_and_an_own_one_entered_again(tmp_path):
    directory = enter(tmp_path / "a" / "b")
    assert (directory.path / "suite.toml").read_text() == "text"
    enter(tmp_path / "a" / "b")
    (tmp_path / "empty").mkdir()
    enter(tmp_path / "empty")


def test_files_of_somebody_else_are_left_alone(tmp_path, snapshot):
    (tmp_path / "thesis.tex").write_text("years of work")
    for update in (False, True):
        refused(tmp_path, "not a run directory and not empty (it holds thesis.tex)", update=update)
    assert set(snapshot(tmp_path)) == {"thesis.tex"}
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("content", ["{}", "[1]", '{"cells": 3}', "{", ""])
def test_a_manifest_of_something_else_is_left_alone(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    refused(tmp_path, "manifest", update=True)
    assert [one.name for one in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == content


def test_a_suite_that_somebody_keeps_in_the_folder_is_not_written_over(tmp_path):
    (tmp_path / "suite.toml").write_text("another")
    refused(tmp_path, "holds another suite.toml")
    assert [one.name for one in tmp_path.iterdir()] == ["suite.toml"]
    assert (tmp_path / "suite.toml").read_text() == "another"
    enter(tmp_path, update=True)
    assert (tmp_path / "suite.toml").read_text() == "text"


def test_a_run_killed_before_its_manifest_goes_on(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "suite.toml").write_text("text")
    (tmp_path / ".manifest.json.17.tmp").write_text('{"sui')
    (tmp_path / "records" / ".a-b.parquet.17.tmp").write_text("PAR")
    (tmp_path / "records" / ".mine.tmp").write_text("no number: not ours")
    enter(tmp_path)
    left = {one.name for one in tmp_path.rglob("*")}
    assert left == {"records", "suite.toml", "manifest.json", ".lock", ".mine.tmp"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({**SUITE, "seed": 1}, "(seed: 0 before, 1 now)"),
        ({**SUITE, "name": "x"}, '(name: nothing before, "x" now)'),
        ({"attacks": SUITE["attacks"]}, "(seed: 0 before, nothing now)"),
        (
            {"seed": 0, "attacks": [{"name": "fgsm"}, {"name": "pgd", "steps": 40}]},
            "(attacks[2].steps: 20 before, 40 now)",
        ),
        ({"seed": 0, "attacks": [{"name": "fgsm"}]}, '(attacks: [{"name": "fgsm"}, '),
    ],
)
def test_a_changed_suite_is_refused_by_what_changed(tmp_path, snapshot, changed, says):
    enter(tmp_path)
    before = snapshot(tmp_path)
    refused(tmp_path, says, changed, "new text")
    refused(tmp_path, "--update", changed, "new text")
    assert snapshot(tmp_path) == before
    enter(tmp_path, changed, "new text", update=True)
    assert read_manifest(tmp_path)["suite"] == changed


def test_two_runs_cannot_share_a_directory(tmp_path):
    enter(tmp_path)
    with FileLock(tmp_path / ".lock"):
        refused(tmp_path, "is in use by another run")
    enter(tmp_path)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_directory_that_cannot_be_made_is_named(tmp_path, below):
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file" / below, "cannot be written")
    assert (tmp_path / "file").read_text() == "x"


def test_names_of_records_are_for_people_and_files_alike(tmp_path):
    directory = enter(tmp_path)
    key = "0123456789abcdef" * 4
    path = directory.records("res/net: 8", "../none", "pgd 8/255", key=key)
    assert path.parent == tmp_path / "records"
    assert path.name == "res_net_8-.._none-pgd_8_255-0123456789abcdef.parquet"
    longest = directory.records("m" * 300, "d" * 300, "a" * 300, key=key)
    assert len(longest.name) < 200


def test_finished_and_failed_cells_are_read_with_the_titles_of_the_manifest(tmp_path):
    directory = enter(tmp_path)
    cell = Cell({"attack": "old", "key": "k"}, pd.DataFrame({"index": [1]}))
    write_cell(tmp_path / "records" / "one.parquet", cell)
    names = {"dataset": "d", "norm": "L2", "model": "m", "defense": "n", "attack": "a"}
    done = names | {"status": "done", "file": "records/one.parquet", "titles": {"attack": "new"}}
    done["seconds"] = 1.5
    failed = names | {"status": "failed", "error": "x"}
    directory.write_manifest({"suite": SUITE, "cells": [done, failed]})
    cells, lost = read_cells(tmp_path)
    assert [one.about for one in cells] == [{"attack": "new", "key": "k", "seconds": 1.5}]
    assert [one[:6] for one in lost] == [("d", "L2", "m", "n", "a", "failed")]


def test_what_is_no_run_directory_cannot_be_read(tmp_path):
    with pytest.raises(
        RunDirectoryError, match=r"is not a run directory: it has no manifest\.json"
    ):
        read_cells(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"cells": [{"status": "done"}]}))
    with pytest.raises(RunDirectoryError, match=r"manifest\.json"):
        read_cells(tmp_path)


@pytest.mark.parametrize("letter", ["\N{CJK UNIFIED IDEOGRAPH-4E00}", "\U00020000", "x"])
def test_the_name_of_a_records_file_is_short_in_bytes(tmp_path, letter):
    path = RunDirectory(tmp_path).records(*[letter * 60] * 3, key="k" * 64)
    assert len(path.name.encode()) < 200
    path.parent.mkdir()
    path.with_suffix(".error.txt").write_text("")
    assert path.name.startswith(letter)
