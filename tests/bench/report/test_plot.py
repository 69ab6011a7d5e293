"""The trade-off figure: what it shows, how it is drawn, and what a user gets wrong."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest

from quintain.bench import cli
from quintain.bench.api.errors import BadParameter, QuintainError
from quintain.bench.report.figure import check_ending, tradeoff_figure, write_figure
from quintain.bench.report.label_placement import Box, around, placed
from quintain.bench.report.statistics import interval
from quintain.bench.report.sweeps import Comparison, ModelSeries, Share, comparison
from quintain.bench.report.tables import LEADERBOARD_COLUMNS, TRADEOFF_COLUMNS

SWEEP = [f"trades beta={value}" for value in ("10", "1", "1/3")]


def rows(defense, model="cnn", clean=0.9, lost=(0.2, 0.5), **named):
    """Rows of tradeoff.csv: at two epsilons, of one attack and of the worst case."""
    made = []
    for attack, extra in (("pgd", 0.05), ("worst-case", 0.0)):
        for epsilon, loss in zip(("8/255", "0.1"), lost, strict=True):
            robust = round(100 * (clean - loss + extra))
            low, high = interval(robust, 100)
            made.append(
                {
                    "dataset": "digits", "n_examples": 100, "model": model, "defense": defense,
                    "attack": attack, "norm": "Linf", "epsilon": epsilon,
                    "clean_accuracy": clean, "robust_accuracy": robust / 100,
                    "ci_low": low, "ci_high": high, "flags": "", "seed": 0, **named,
                }
            )  # fmt: skip
    return made


def tables(*groups, epsilon="0.1"):
    every = pd.DataFrame([row for group in groups for row in group], columns=TRADEOFF_COLUMNS)
    at = every[(every["attack"] == "worst-case") & (every["epsilon"] == epsilon)]
    return every, at.reindex(columns=LEADERBOARD_COLUMNS)


def test_it_shows_the_worst_cases_with_their_intervals():
    shown = comparison(*tables(rows("none"), rows("other", clean=0.8)))
    assert (shown.dataset, shown.norm, shown.epsilon) == ("digits", "Linf", "0.1")
    assert shown.n_examples == (100,)
    first = shown.series[0]
    assert (first.model, first.defense, first.sweep) == ("cnn", "none", "")
    clean, robust = Share(0.9, *interval(90, 100)), Share(0.4, *interval(40, 100))
    assert (first.clean, first.robust) == (clean, robust)
    assert first.curve == ((0.0, clean), (8 / 255, Share(0.7, *interval(70, 100))), (0.1, robust))
    assert first.complete


def test_titles_that_differ_in_a_last_number_are_a_sweep():
    groups = [rows(one) for one in ("none", *SWEEP, "mart beta=5", "adversarial-training")]
    shown = comparison(*tables(*groups, rows("trades beta=1", "other")))
    found = {(one.model, one.defense): (one.sweep, one.swept, one.value) for one in shown.series}
    assert found["cnn", "trades beta=10"] == ("trades beta", "beta=10", 10.0)
    assert found["cnn", "trades beta=1/3"] == ("trades beta", "beta=1/3", 1 / 3)
    alone = [("cnn", "none"), ("cnn", "mart beta=5"), ("other", "trades beta=1")]
    assert all(found[one] == ("", "", 0.0) for one in alone)
    assert shown.models == ("cnn", "other")


def test_seeds_are_told_apart_and_failed_attacks_are_told():
    shown = comparison(*tables(rows("none"), rows("none", seed=1), rows("at", flags="failed:pgd")))
    assert [one.defense for one in shown.series] == [
        "none (seed 0)", "none (seed 1)", "at (seed 0)",
    ]  # fmt: skip
    assert [one.complete for one in shown.series] == [True, True, False]


@pytest.mark.parametrize(
    ("groups", "line"),
    [
        ([rows("none"), rows("none", n_examples=50)], "2 networks are called cnn x none: give one"),
        ([rows("none"), rows("none", clean=0.8)], "two networks are called cnn x none: give one"),
        (
            [rows("none"), rows("none", dataset="mnist")],
            "not digits, Linf, 0.1; mnist, Linf, 0.1: plot them apart",
        ),
    ],
)
def test_what_does_not_compare_is_refused(groups, line):
    with pytest.raises(BadParameter) as caught:
        comparison(*tables(*groups))
    assert line in str(caught.value)


@pytest.fixture
def shown():
    groups = [rows(one, clean=0.9 + n / 100) for n, one in enumerate(SWEEP)]
    return comparison(*tables(rows("none", lost=(0.5, 0.9)), *groups))


def test_the_picture_says_what_it_shows(shown, tmp_path):
    write_figure(tmp_path / "t.svg", shown)
    text = (tmp_path / "t.svg").read_text("utf-8")
    words = " ".join("".join(one.itertext()) for one in ElementTree.fromstring(text).iter())
    for part in (
        "digits, cnn: worst case over the attacks, 95% intervals, n = 100",
        "clean accuracy (%)", "robust accuracy (%)", "beta=1/3", "none",
        "trades beta=10",
    ):  # fmt: skip
        assert part in words
    again = tmp_path / "again.svg"
    write_figure(again, shown)
    assert again.read_text("utf-8") == text


@pytest.mark.parametrize(("ending", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_formats_go_by_the_ending(ending, magic, shown, tmp_path):
    write_figure(tmp_path / f"t{ending}", shown)
    assert (tmp_path / f"t{ending}").read_bytes().startswith(magic)


def test_points_are_where_the_tables_say_and_sweeps_are_joined_in_order(shown):
    from quintain.bench.report.figure import tradeoff_figure

    left, right = tradeoff_figure(shown).axes
    assert right.get_title(loc="left") == r"(b) the trade-off at $\epsilon$ = 0.1"
    curve = next(one for one in left.get_lines() if one.get_label() == "none")
    assert curve.get_xydata().tolist() == [[0.0, 90.0], [8 / 255, 40.0], [0.1, 0.0]]
    lines = [one.get_xydata().tolist() for one in right.get_lines()]
    joined = [[92.0, 42.0], [91.0, 41.0], [90.0, 40.0]]  # beta = 1/3, 1, 10
    assert joined in lines
    assert [[90.0, 0.0]] in lines
    assert all([point] in lines for point in joined)
    assert {one.get_text() for one in right.texts} == {"none", "beta=10", "beta=1", "beta=1/3"}


def test_labels_lie_clear_of_each_other_of_obstacles_and_of_the_edge():
    page = Box(0.0, 0.0, 300.0, 200.0)
    points = [(20.0 + 13 * n, 190.0 - 8 * n) for n in range(12)] + [(298.0, 2.0)]
    sizes = [(40.0, 8.0)] * len(points)
    obstacles = [around(x, y, 6.0, 6.0) for x, y in points]
    boxes = [
        around(*centre, *size)
        for centre, size in zip(placed(points, sizes, obstacles, page), sizes, strict=True)
    ]
    for n, box in enumerate(boxes):
        assert box.overlap(page) == pytest.approx(box.area)
        assert sum(box.overlap(one) for one in obstacles + boxes[:n]) == 0.0


def test_a_label_without_room_stays_on_the_page():
    page = Box(0.0, 0.0, 120.0, 60.0)
    (centre,) = placed([(60.0, 30.0)], [(50.0, 8.0)], [page], page)
    assert around(*centre, 50.0, 8.0).overlap(page) == pytest.approx(400.0)
    (free,) = placed([(60.0, 30.0)], [(50.0, 8.0)], [Box(0.0, 0.0, 120.0, 40.0)], page)
    assert free[1] - 4.0 >= 40.0


def plot(capsys, *arguments):
    with pytest.raises(SystemExit) as ending:
        cli.main(["plot", *map(str, arguments)])
    said = capsys.readouterr()
    return ending.value.code, said.out + said.err


def test_the_command_draws_a_run(fabricate, tmp_path, capsys):
    fabricate(tmp_path, 1, 3, 1)
    code, said = plot(capsys, tmp_path / "out", "--output", tmp_path / "t.svg")
    assert code == 0
    assert f"wrote {tmp_path / 't.svg'}" in said
    text = (tmp_path / "t.svg").read_text("utf-8")
    assert "as-is-2" in text


def test_a_users_mistakes_are_one_line_each(tmp_path, capsys):
    cases = [
        ("t.jpeg", "t.jpeg ends in '.jpeg', which is no format of figures; did you mean '.png'?"),
        ("t", "t ends in '', which is no format of figures; there are .png, .svg, .pdf"),
        ("t.png", "is not a run directory: it has no manifest.json"),
    ]
    for name, line in cases:
        code, said = plot(capsys, tmp_path, "--output", tmp_path / name)
        assert (code, said.count("\n")) == (2, 1)
        assert line in said
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(QuintainError, match=r"needs the package matplotlib.*quintain\[figures\]"):
        check_ending(tmp_path / "t.png")


def test_what_is_drawn_is_known_without_torch_and_matplotlib():
    code = (
        "import sys, quintain.bench.report.figure; sys.exit(bool({'torch', 'matplotlib'} &"
        " set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_more_defenses_than_colours_still_look_different():
    names = [f"defense {letter}" for letter in "abcdefghijklmnopqr"]
    share = Share(0.5, 0.4, 0.6)
    curve = ((0.0, share), (0.1, share))
    series = tuple(ModelSeries("net", name, curve, share, share, True) for name in names)
    figure = tradeoff_figure(Comparison("digits", "Linf", "0.1", (100,), series))
    lines = figure.axes[0].get_legend_handles_labels()[0]
    looks = {(one.get_color(), one.get_marker(), one.get_linestyle()) for one in lines}
    assert len(looks) == len(names)
