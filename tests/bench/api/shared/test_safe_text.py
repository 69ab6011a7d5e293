"""Text from outside in every output: nothing in it is run, obeyed or read as layout."""

import csv
import io
import itertools
import json

import numpy as np
import pandas as pd
import pytest

from quintain.bench.api.shared.progress_bars import Bar, say
from quintain.bench.api.shared.safe_text import drawn, lines, markdown, plain, short
from quintain.bench.report.comparison import Comparison, ModelSeries, Share
from quintain.bench.report.figure import tradeoff_figure
from quintain.bench.report.formats.leaderboard import leaderboard_table
from quintain.bench.report.render import run_summary
from quintain.bench.report.tables import LEADERBOARD_COLUMNS, TRADEOFF_COLUMNS
from quintain.bench.report.write import read_table
from quintain.bench.store.spreadsheet import guarded, restored, to_csv, unguarded

HOSTILE = [
    '=HYPERLINK("http://x","y")', "+1", "-1+1", "@SUM(A1)", "\tx", "\r=1", "'=1", "''-x", "pgd;=1",
    "\uff1d1", "<script>alert(1)</script>", "a|b", "a\\|b", "one\ntwo", "\x1b[2J\x1b]0;t\x07",
    "\u202eabc", "[x](javascript:1)", "![x](http://x/y.png)", "&lt;b&gt;", "\\input{x}", "$x^{$",
    "`x`", "\x9b31m", "\udcff", "a\x00b", "nan", "", "0012", "50% & co",
]  # fmt: skip
TITLES = [one for one in HOSTILE if one != "\udcff"]  # a table holds characters
WRITABLE = [one for one in TITLES if one != "a\x00b"]  # and so does a CSV file
UNSAFE = {chr(n) for n in [*range(32), *range(127, 160), 0x202E, 0xDCFF]}


def test_one_line_is_safe_for_a_terminal_and_loses_nothing_else():
    for text in HOSTILE:
        assert not UNSAFE & set(plain(text)), text
        assert not (UNSAFE - {"\n"}) & set(lines(text))
        assert len(short(text * 1000)) <= 1200
    assert plain("Größe 8/255 ε") == "Größe 8/255 ε"
    assert lines("a\nb\x07") == "a\nb\\x07"


def test_every_short_text_comes_back_from_a_spreadsheets_and_none_begins_a_formula():
    texts = ["".join(one) for n in range(6) for one in itertools.product("'=;a\t", repeat=n)]
    for text in [*texts, *HOSTILE]:
        written = guarded(text)
        assert unguarded(written) == text
        assert not any(cell[:1] in tuple("=+-@\t\r\n\uff1d") for cell in written.split(";")), text
        if text == text.lstrip("=+-@\t\r\n'\uff1d") and ";" not in text:
            assert written == text


def test_numbers_stay_numbers_in_a_csv():
    table = pd.DataFrame({"name": ["-1", "a"], "number": [-1, 2], "share": [-0.5, np.nan]})
    assert to_csv(table) == "name,number,share\n'-1,-1,-0.5\na,2,\n"
    assert restored(pd.read_csv(io.StringIO(to_csv(table)))).equals(table)


def board(texts):
    row = dict.fromkeys(LEADERBOARD_COLUMNS, 0.5) | {"rank": 1, "parameters": 7, "n_examples": 24}
    row |= {"dataset": "d", "norm": "Linf", "epsilon": "8/255", "certified_accuracy": np.nan}
    row |= {"config_hash": "0" * 16, "weights_hash": "1" * 16}
    row |= {"rank_low": 1, "rank_high": 1, "tie_group": 1}
    rows = [row | {"model": one, "defense": one, "attacks": one, "flags": one} for one in texts]
    return pd.DataFrame(rows, columns=LEADERBOARD_COLUMNS)


def test_our_own_csv_reads_back_as_it_was_and_a_spreadsheet_runs_none_of_it(tmp_path):
    table = board(WRITABLE)
    path = tmp_path / "leaderboard.csv"
    path.write_bytes(leaderboard_table(table, "csv").encode())
    back = read_table(path)
    for name in ("model", "defense", "attacks", "flags"):
        assert back[name].tolist() == WRITABLE
    for row in csv.reader(io.StringIO(path.read_bytes().decode(), newline="")):
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("form", ["markdown", "html", "latex"])
def test_no_label_is_markup(form):
    plain_rows = leaderboard_table(
        board([f"x{i}" if one else "" for i, one in enumerate(TITLES)]), form
    ).count("\n")
    text = leaderboard_table(board(TITLES), form)
    assert text.count("\n") == plain_rows
    assert not (UNSAFE - {"\n"}) & set(text)
    if form == "latex":
        assert "\\input" not in text
        assert r"\textbackslash input\{x\}" in text.replace("\\textbackslash{}", "\\textbackslash ")
    else:
        assert "<script" not in text
    if form == "markdown":
        assert "](" not in text.replace("\\[x](", "")
        columns = {
            line.replace("\\\\", "").replace("\\|", "").count("|")
            for line in text.splitlines()
            if line.startswith("|")
        }
        assert len(columns) == 1


def test_the_summary_of_a_run_is_as_inert():
    row = dict.fromkeys(TRADEOFF_COLUMNS, 0.5) | {"epsilon": "8/255", "norm": "Linf"}
    rows = [
        row | {"dataset": one, "model": one, "defense": one, "attack": "pgd", "flags": one}
        for one in TITLES[::-1]
    ]
    text = run_summary(pd.DataFrame(rows, columns=TRADEOFF_COLUMNS), board(TITLES))
    assert "<script" not in text
    assert not (UNSAFE - {"\n"}) & set(text)


def test_progress_and_lines_do_not_steer_the_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    say("a\x1b[2Jb\x9b")
    bar = Bar("t\x1b[2J\nu")
    bar.update(1, 2, "n\x07")
    bar.close()
    shown = capsys.readouterr().err
    assert r"a\x1b[2Jb\x9b" in shown
    assert "\x1b[2J" not in shown
    assert not set("\x07\x9b") & set(shown)


def test_dollars_in_a_label_are_no_mathematics():
    whole = Share(0.5, 0.4, 0.6)
    curve = ((0.0, whole), (8 / 255, whole))
    series = tuple(
        ModelSeries("m", one, curve, whole, whole, complete=True)
        for one in ("$x^{$", "a\nb\x1b$y$")
    )
    pytest.importorskip("matplotlib")
    figure = tradeoff_figure(Comparison("d$a_{$", "Linf", "8/255", (24,), series))
    figure.canvas.draw()  # bad mathematics would raise here
    titles = [text.get_text() for text in figure.legends[0].get_texts()]
    assert titles == [r"\$x^{\$", r"a\nb\x1b\$y\$"]
    assert drawn("8/255") == "8/255"


LABEL = "=<b>\\u001b[2J|\\nx"


def test_a_label_of_a_suite_is_inert_on_the_terminal(tmp_path, write_suite, quintain):
    models = f'[[models]]\nname = "resnet"\ndepth = 9\nlabel = "{LABEL}"\n'
    answer = quintain("run", write_suite(models=models, name='"\x1b[2J"'), "--device", "cpu")
    assert answer.code == 2
    assert "\x1b" not in answer.err + answer.out


def test_titles_of_somebodys_manifest_are_inert(tmp_path, tiny_run, quintain):
    import shutil

    shutil.copytree(tiny_run, tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    about = json.loads(path.read_text())
    del about["seal"]  # somebody who writes a manifest writes none, or a right one
    for cell in about["cells"]:
        cell["titles"]["model"] = "=<script>\x1b[2J|\nx"
    path.write_text(json.dumps(about))
    shown = quintain("leaderboard", tmp_path / "run").out
    assert r"=&lt;script>\\x1b\[2J\|\\nx" in shown
    for form in ("csv", "html", "latex"):
        shown = quintain("leaderboard", tmp_path / "run", "--format", form).out
        assert "\x1b" not in shown
    assert "'=<script>" in quintain("leaderboard", tmp_path / "run", "--format", "csv").out


def test_what_markdown_needs_is_all_that_it_changes():
    assert markdown("resnet_8 & co, 8/255 (beta=1)*") == "resnet_8 & co, 8/255 (beta=1)*"
