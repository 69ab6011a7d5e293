"""Commands over several run directories: what is no run, and results without records."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

RESULTS = Path(__file__).parents[3] / "results"
NAMED = ["quickstart", "defenses"]


@pytest.fixture
def run(tiny_run, tmp_path):
    return Path(shutil.copytree(tiny_run, tmp_path / "runs" / "tiny"))


def board(text):
    return pd.read_csv(io.StringIO(text), keep_default_na=False)


@pytest.mark.parametrize("name", NAMED)
def test_a_checked_in_result_is_shown_as_it_was_written(quintain, name):
    answer = quintain("leaderboard", RESULTS / name, "--format", "csv")
    assert answer.code == 0
    assert answer.out == (RESULTS / name / "leaderboard.csv").read_text("utf-8")
    assert f"{name} holds no records: its tables are taken as they were written" in answer.err


def test_a_checked_in_result_is_drawn(quintain, tmp_path):
    answer = quintain("plot", RESULTS / "quickstart", "--output", tmp_path / "a.svg")
    assert answer.code == 0, answer.err
    assert "<svg" in (tmp_path / "a.svg").read_text("utf-8")
    assert "as they were written" in answer.err


def test_runs_and_checked_in_results_are_ranked_together(quintain, run):
    answer = quintain("leaderboard", RESULTS / "quickstart", run, "--format", "csv")
    assert answer.code == 0
    table = board(answer.out)
    alone = board(quintain("leaderboard", run, "--format", "csv").out)
    kept = board((RESULTS / "quickstart" / "leaderboard.csv").read_text("utf-8"))
    assert len(table) == len(alone) + len(kept)
    for _, rows in table.groupby(["dataset", "norm", "epsilon"]):
        assert rows["rank"].tolist() == [
            1 + sum(rows["robust_accuracy"] > one) for one in rows["robust_accuracy"]
        ]
        assert rows["robust_accuracy"].is_monotonic_decreasing


def test_a_run_without_its_records_gives_the_same(quintain, run):
    whole = quintain("leaderboard", run, "--format", "csv").out
    shutil.rmtree(run / "records")
    answer = quintain("leaderboard", run, "--format", "csv")
    assert answer.out == whole
    assert "holds no records" in answer.err


def test_tables_that_were_altered_are_not_believed(quintain, run):
    shutil.rmtree(run / "records")
    table = run / "leaderboard.csv"
    table.write_text(table.read_text("utf-8").replace("none", "mine"))
    answer = quintain("leaderboard", run)
    assert answer.code == 2
    assert "leaderboard.csv is not the table that the manifest beside it names" in answer.error
    table.unlink()
    assert "holds neither records nor leaderboard.csv" in quintain("leaderboard", run).error


def test_a_record_that_is_missing_among_others_is_an_error(quintain, run):
    next((run / "records").glob("*.parquet")).unlink()
    answer = quintain("leaderboard", run)
    assert answer.code == 2
    assert "cannot be read" in answer.error


@pytest.mark.parametrize("command", ["leaderboard", "plot"])
def test_what_is_no_run_is_left_out_with_a_note(quintain, run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "bench").mkdir()
    (tmp_path / "runs" / "notes.txt").write_text("hello")
    answer = quintain(command, *sorted((tmp_path / "runs").iterdir()))
    assert answer.code == 0, answer.err
    notes = answer.err.splitlines()
    assert [Path(one.split()[1]).name for one in notes] == ["bench", "notes.txt"]
    assert all("is left out: it is no run directory" in one for one in notes)


def test_it_is_an_error_when_nothing_is_left(quintain, tmp_path):
    answer = quintain("leaderboard", tmp_path / "a", tmp_path / "b")
    assert answer.code == 2
    assert "no finished cell in" in answer.err.splitlines()[-1]
    answer = quintain("leaderboard", tmp_path)
    assert answer.code == 2
    assert "is not a run directory: it has no manifest.json" in answer.error


def test_a_damaged_run_is_not_left_out(quintain, run, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "runs" / "other"))
    (other / "manifest.json").write_text("{")
    answer = quintain("leaderboard", run, other)
    assert answer.code == 2
    assert "manifest.json cannot be read" in answer.err


BEGINNINGS = {
    "csv": "rank,dataset",
    "md": "Leaderboard: digits",
    "markdown": "Leaderboard: digits",
    "tex": r"% needs \usepackage{booktabs}",
    "html": "<table",
    "htm": "<table",
    "HTML": "<table",
    "txt": "Leaderboard: digits",
}


@pytest.mark.parametrize("ending", BEGINNINGS)
def test_the_ending_names_the_format(quintain, ending, tmp_path):
    path = tmp_path / f"board.{ending}"
    answer = quintain("leaderboard", RESULTS / "quickstart", "--output", path)
    assert answer.code == 0
    assert path.read_text("utf-8").startswith(BEGINNINGS[ending])


def test_formats_and_endings_that_do_not_agree(quintain, tmp_path):
    def refused(*arguments):
        answer = quintain("leaderboard", RESULTS / "quickstart", *arguments)
        assert answer.code == 2
        assert list(tmp_path.iterdir()) == []
        return answer.err

    said = refused("--output", tmp_path / "a.tex", "--format", "csv")
    assert "a.tex ends as latex, but --format says csv" in said
    assert "the ending .pdf is no format" in refused("--output", tmp_path / "a.pdf")
    assert "did you mean 'latex'" in refused("--format", "latx")
    path = tmp_path / "a.dat"
    answer = quintain("leaderboard", RESULTS / "quickstart", "--output", path, "--format", "csv")
    assert answer.code == 0
    assert path.read_text("utf-8").startswith("rank,")


@pytest.mark.parametrize("name", NAMED)
def test_the_manifests_of_checked_in_results_name_their_tables(name):
    about = json.loads((RESULTS / name / "manifest.json").read_text("utf-8"))
    for table in ("tradeoff.csv", "leaderboard.csv"):
        content = (RESULTS / name / table).read_bytes()
        assert hashlib.sha256(content).hexdigest() == about["tables"][table]
