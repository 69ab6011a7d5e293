import io
import json
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from quintain.bench.report.formats import FORMATS
from quintain.bench.report.formats.leaderboard import leaderboard_table
from quintain.bench.report.render import run_summary, tradeoff_table
from quintain.bench.report.tables import LEADERBOARD_COLUMNS, TRADEOFF_COLUMNS

SHOWN = [
    "rank",
    "model",
    "defense",
    "epsilon",
    "clean",
    "robust",
    "95% interval",
    "area",
    "flags",
]


@pytest.fixture
def board():
    hashes = {"config_hash": "0123456789abcdef", "weights_hash": "fedcba9876543210"}
    row = {
        "rank": 1,
        "dataset": "digits",
        "model": "resnet_8 & co",
        "defense": "50% <off>",
        "norm": "Linf",
        "epsilon": "8/255",
        "n_examples": 24,
        "clean_accuracy": 23 / 24,
        "robust_accuracy": 1 / 3,
        "ci_low": 0.18,
        "ci_high": 0.53299,
        "curve_area": 0.5,
        "attacks": "fgsm;pgd",
        "flags": "",
        "parameters": 4934,
        **hashes,
        "rank_low": 1,
        "rank_high": 2,
        "tie_group": 1,
    }
    other = row | {"rank": 2, "model": "alexnet", "epsilon": "0.10", "flags": "failed:pgd"}
    other |= {"rank_low": 2}
    return pd.DataFrame([row, other], columns=LEADERBOARD_COLUMNS)


def from_markdown(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[unescape(cell.strip()) for cell in line.strip("|").split("|")] for line in lines]
    assert set("".join(rows[1])) <= set("-: ")
    return [rows[0], *rows[2:]]


def from_latex(text):
    body = re.search(r"\\toprule(.*)\\bottomrule", text, re.DOTALL).group(1)
    plain = body.replace(r"\midrule", "")
    for written, meant in ((r"\&", "\0"), (r"\%", "%"), (r"\_", "_")):
        plain = plain.replace(written, meant)
    rows = [line for line in plain.split(r"\\") if line.strip()]
    return [[cell.strip().replace("\0", "&") for cell in row.split("&")] for row in rows]


class Rows(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.text = [], None

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.text = ""

    def handle_data(self, data):
        if self.text is not None:
            self.text += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[-1].append(self.text)
            self.text = None


def from_html(text):
    parser = Rows()
    parser.feed(text)
    return parser.rows


READERS = {"markdown": from_markdown, "latex": from_latex, "html": from_html}


def test_every_format_is_tried_here():
    assert set(FORMATS) == {*READERS, "csv", "robustbench"}


@pytest.mark.parametrize("form", READERS)
def test_a_leaderboard_reads_back_from_every_format(board, form):
    text = leaderboard_table(board, form)
    assert text.endswith("\n")
    rows = READERS[form](text)
    assert rows[0] == SHOWN
    first, second = (dict(zip(SHOWN, row, strict=True)) for row in rows[1:])
    assert (first["rank"], first["epsilon"], second["rank"]) == ("1 (1-2)", "8/255", "2")
    assert first["model"] == "resnet_8 & co"
    assert (first["clean"], first["robust"], first["area"]) == ("0.958", "0.333", "0.500")
    assert first["95% interval"] == "0.180 to 0.533"
    assert (second["epsilon"], second["flags"]) == ("0.10", "1")
    assert "digits, Linf, 24 examples, worst case over fgsm, pgd" in text
    assert "alexnet x 50" in text
    assert "failed:pgd" in text
    if form != "latex":  # which may set < and > in its own way
        assert first["defense"] == "50% <off>"


def test_a_bar_in_a_label_does_not_become_a_column(board):
    text = leaderboard_table(board.assign(model=["a|b", "c"]), "markdown")
    assert r"| a\|b " in text


def test_the_csv_keeps_every_digit(board):
    text = leaderboard_table(board, "csv")
    back = pd.read_csv(
        io.StringIO(text),
        dtype={"epsilon": str},
        keep_default_na=False,
        na_values={name: [""] for name in board.columns if name != "flags"},
    )
    pd.testing.assert_frame_equal(back, board, check_exact=True)


def test_showing_a_table_leaves_it_as_it_was(board):
    before = board.copy()
    for form in FORMATS:
        leaderboard_table(board, form)
    pd.testing.assert_frame_equal(board, before)


def test_the_markdown_fits_a_hundred_columns(board):
    table = board.assign(flags="", epsilon="8/255", defense="adversarial-training")
    text = leaderboard_table(table.assign(model="googlenet"))
    assert max(map(len, text.splitlines())) <= 100


def test_robustbench_gets_its_own_fields(board):
    """As their files have them; their reader sorts by these percents as numbers."""
    fields = [
        "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue",
        "architecture", "eps", "clean_acc", "reported", "external", "footnote", "unreliable",
    ]  # fmt: skip
    first, second = json.loads(leaderboard_table(board, "robustbench"))
    assert list(first) == fields
    assert (first["clean_acc"], first["external"], first["eps"]) == ("95.83", "33.33", "8/255")
    assert float(first["reported"]) == 33.33
    assert "fgsm, pgd, not AutoAttack" in first["footnote"]
    assert (first["unreliable"], second["unreliable"]) == (False, True)


def test_autoattack_acc_is_of_the_standard_cascade_alone(board):
    attacks = ["autoattack", "autoattack"]
    first, second = json.loads(leaderboard_table(board.assign(attacks=attacks), "robustbench"))
    assert first["autoattack_acc"] == "33.33"
    assert "autoattack_acc" not in second  # a cell failed
    for others in ("autoattack;pgd", "strongest", "autoattack-rand"):
        for one in json.loads(leaderboard_table(board.assign(attacks=others), "robustbench")):
            assert "autoattack_acc" not in one


@pytest.fixture
def tradeoff():
    rows = []
    for attack, accuracies, flags in [("pgd", (0.5, 0.25), ""), ("worst-case", (0.5, 0.0), "odd")]:
        for epsilon, robust in zip(("8/255", "0.10"), accuracies, strict=True):
            rows.append(
                dict.fromkeys(TRADEOFF_COLUMNS, 0)
                | {"dataset": "digits", "norm": "Linf", "n_examples": 24, "model": "resnet"}
                | {"defense": "none", "attack": attack, "epsilon": epsilon, "flags": flags}
                | {"clean_accuracy": 0.958, "robust_accuracy": robust}
                | {"forward_mean": 1234.5, "backward_mean": 3.2}
            )
    return pd.DataFrame(rows, columns=TRADEOFF_COLUMNS)


def test_the_tradeoff_has_a_column_for_each_epsilon(tradeoff):
    rows = from_markdown(tradeoff_table(tradeoff))
    assert rows[0][:6] == ["model", "defense", "attack", "clean", "8/255", "0.10"]
    assert rows[1][:6] == ["resnet", "none", "pgd", "0.96", "0.50", "0.25"]
    assert rows[2][:6] == ["resnet", "none", "worst-case", "0.96", "0.50", "0.00"]
    assert rows[1][6:] == ["1,234", "3"]


def test_the_summary_says_what_is_shared_once_and_the_flags_below(tradeoff, board):
    text = run_summary(tradeoff, board)
    assert "digits, Linf, 24 examples" in text
    assert "- resnet x none x worst-case: odd" in text
    assert "x pgd: " not in text
    assert "epsilon 8/255" in text
    assert "Flags" not in run_summary(tradeoff.assign(flags=""), board)


def test_certified_accuracy_is_shown_where_there_is_one(board):
    assert "certified" not in leaderboard_table(board.assign(certified_accuracy=np.nan))
    text = leaderboard_table(board.assign(certified_accuracy=[0.25, np.nan]))
    assert "certified" in text
    assert "0.250" in text
    assert "nan" not in text


def test_what_certificates_lack_is_left_empty():
    shared = {"model": "m", "defense": "d", "epsilon": "0.1", "clean_accuracy": 0.9}
    rows = [
        {**shared, "attack": attack, "robust_accuracy": 0.5, "forward_mean": passes,
         "backward_mean": passes}
        for attack, passes in (("pgd", 12.0), ("certified", np.nan))
    ]  # fmt: skip
    text = tradeoff_table(pd.DataFrame(rows))
    assert "certified" in text
    assert "nan" not in text
