"""The trade-off figure: what it shows, how it is drawn, and what a user gets wrong."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend

from quintain.bench import cli
from quintain.bench.api.errors import BadParameter, QuintainError
from quintain.bench.report.comparison import Share, comparison
from quintain.bench.report.figure import tradeoff_figure
from quintain.bench.report.figure_style import check_ending, look, save_figure
from quintain.bench.report.statistics import interval
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
    found = {(one.model, one.defense): (one.sweep, one.value) for one in shown.series}
    assert found["cnn", "trades beta=10"] == ("trades beta", 10.0)
    assert found["cnn", "trades beta=1/3"] == ("trades beta", 1 / 3)
    alone = [("cnn", "none"), ("cnn", "mart beta=5"), ("other", "trades beta=1")]
    assert all(found[one] == ("", 0.0) for one in alone)
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
    save_figure(tradeoff_figure(shown), tmp_path / "t.svg")
    text = (tmp_path / "t.svg").read_text("utf-8")
    words = " ".join("".join(one.itertext()) for one in ElementTree.fromstring(text).iter())
    for part in (
        "digits, cnn: worst case over the attacks, 95% intervals, n = 100",
        "clean accuracy (%)", "robust accuracy (%)", "beta=1/3", "none",
        "trades beta=10",
    ):  # fmt: skip
        assert part in words
    again = tmp_path / "again.svg"
    save_figure(tradeoff_figure(shown), again)
    assert again.read_text("utf-8") == text


@pytest.mark.parametrize(("ending", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_formats_go_by_the_ending(ending, magic, shown, tmp_path):
    save_figure(tradeoff_figure(shown), tmp_path / f"t{ending}")
    assert (tmp_path / f"t{ending}").read_bytes().startswith(magic)


def test_points_are_where_the_tables_say_and_sweeps_are_joined_in_order(shown):
    left, right = tradeoff_figure(shown).axes
    assert right.get_title(loc="left") == r"(b) the trade-off at $\epsilon$ = 0.1"
    curve = next(one for one in left.get_lines() if one.get_label() == "none")
    assert curve.get_xydata().tolist() == [[0.0, 90.0], [8 / 255, 40.0], [0.1, 0.0]]
    lines = [one.get_xydata().tolist() for one in right.get_lines()]
    joined = [[92.0, 42.0], [91.0, 41.0], [90.0, 40.0]]  # beta = 1/3, 1, 10
    assert joined in lines
    assert [[90.0, 0.0]] in lines
    assert all([point] in lines for point in joined)


@pytest.mark.parametrize("count", [1, 2, 6, 18])
@pytest.mark.parametrize("length", [4, 30, 100])
def test_no_text_lies_upon_another_or_over_the_edge(count, length):
    names = [f"{number:0{length}}" for number in range(count)]
    figure = tradeoff_figure(comparison(*tables(*map(rows, names))))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    parts = [*figure.axes, *figure.findobj(Legend), *figure.texts]  # ticks and titles are the axes'
    boxes = [one.get_tightbbox(canvas.get_renderer()) for one in parts]
    for n, box in enumerate(boxes):
        assert [other for other in boxes[:n] if box.overlaps(other)] == []
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
        assert 0 <= box.y0 <= box.y1 <= figure.bbox.height


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


def test_series_look_different_without_colours_too():
    looks = {(one["marker"], one["linestyle"]) for one in map(look, range(40))}
    assert len(looks) == 40
