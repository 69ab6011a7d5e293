"""What is on the page, read as a file, and the command that writes it."""

import json
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest
from made_up_page import made_up
from pyarrow import parquet

from quintain.bench.report.page.build import is_up_to_date, page
from quintain.bench.report.page.charts import Axis
from quintain.bench.report.page.content import content

BROKEN = """
from dataclasses import dataclass
from typing import ClassVar

from quintain.bench.api import registry

@registry.attack("broken")
@dataclass(frozen=True)
class Broken:
    access: ClassVar[str] = "white-box"

    def run(self, *arguments, **options):
        raise RuntimeError("it breaks")
"""


class Text(HTMLParser):
    """All that a reader sees, and the tags."""

    def __init__(self, html):
        super().__init__()
        self.words, self.tags = [], []
        self.feed(html)

    def handle_data(self, data):
        self.words.append(data)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_a_leaderboard_of_thirty_with_a_hundred_pictures_is_below_a_megabyte():
    made = page(made_up(30, pictures=34))  # 102 of 32x32, of noise, which no PNG makes smaller
    assert made.count("data:image/png") == 102
    assert len(made.encode()) < 1_000_000


def test_style_and_script_are_allowed_by_their_hash_alone():
    html = page(made_up(2))
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    closed = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:"
    assert policy.startswith(closed)
    assert policy.count("sha256-") == 2
    assert "unsafe" not in policy
    tags = Text(html).tags
    inline = {name for _, one in tags for name in one if name.startswith("on") or name == "style"}
    assert inline == set()
    assert [one for tag, one in tags if tag == "th" and "scope" not in one] == []
    assert [one for tag, one in tags if tag == "img" and not one.get("alt")] == []


def test_axes_have_round_ticks():
    def texts(axis):
        return [text for _, text in axis.marks()]

    assert texts(Axis("share", 0.0, 1.0)) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    queries = Axis("queries", 1.0, 2500.0, logarithmic=True)
    assert texts(queries) == ["1", "10", "100", "1,000"]


@pytest.fixture
def run(quintain, write_suite, tmp_path):
    """Run a tiny suite; its directory and what was said."""

    def start(out, **top):
        answer = quintain("run", write_suite(**top), "--out", tmp_path / out)
        assert answer.code == 0, answer.err
        return tmp_path / out, answer

    return start


def test_a_run_writes_its_page_and_says_where(run, quintain):
    directory, answer = run("one")
    file = directory / "report.html"
    assert f"The page: {file}" in answer.out
    html = file.read_text("utf-8")
    text = Text(html).text
    board = pd.read_csv(directory / "leaderboard.csv")
    for value in board["robust_accuracy"]:
        assert f"{value:.3f}" in text
    assert "Provenance" in text
    assert "quintain run" in text
    assert str(directory.parent) not in html  # no path of this computer
    assert is_up_to_date([directory], file)
    before = file.stat().st_mtime_ns
    run("one")  # nothing has changed
    assert file.stat().st_mtime_ns == before
    file.unlink()
    assert quintain("report", directory).code == 0
    assert file.read_text("utf-8") == html


def test_the_tables_and_the_page_of_a_run_read_each_record_once(run, quintain, monkeypatch):
    opened, real = [], parquet.ParquetFile

    def counting(*arguments, **options):
        opened.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(parquet, "ParquetFile", counting)
    directory, _ = run("one")
    records = list((directory / "records").glob("*.parquet"))
    assert len(opened) == len(records) > 1
    opened.clear()
    run("one")  # nothing has changed
    assert opened == []
    (directory / "report.html").unlink()
    run("one")  # the tables are there, the page is made of the records
    assert len(opened) == len(records)


def test_the_page_of_a_run_is_that_of_its_directory(write_suite, quintain, tmp_path):
    """Also with failed cells, targeted attacks, queries, and each network against every other."""
    (tmp_path / "broken.py").write_text(BROKEN)
    attacks = "".join(f'[[attacks]]\nname = "{one}"\n' for one in ("fgsm", "broken"))
    attacks += '[[attacks]]\nname = "square"\nquery_budget = 30\n'
    top = {"plugins": '["broken.py"]', "targets": '"random"', "transfer": '"fgsm"'}
    defense = '[[defenses]]\nname = "none"\nlabel = "{0} epochs"\nepochs = {0}\n'
    defenses = defense.format(1) + defense.format(2)
    suite = write_suite(attacks=attacks, defenses=defenses, **top)
    answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu")
    assert answer.code == 1, answer.err
    names = {one.name for one in (tmp_path / "out").glob("*.csv")}
    assert names == {"tradeoff.csv", "leaderboard.csv", "queries.csv", "transfer.csv"}
    assert quintain("report", tmp_path / "out", "--output", tmp_path / "again.html").code == 0
    written, again = (tmp_path / one for one in ("out/report.html", "again.html"))
    assert "failed:broken" in written.read_text("utf-8")
    assert again.read_bytes() == written.read_bytes()


def test_pictures_of_the_kept_examples_are_on_the_page(run):
    directory, _ = run("one")
    html = (directory / "report.html").read_text("utf-8")
    kept = list((directory / "examples").glob("*.safetensors"))
    assert ("data:image/png" in html) == bool(kept)
    assert kept


def test_pictures_say_what_the_example_was_taken_for(run):
    directory, _ = run("one")
    text = Text((directory / "report.html").read_text("utf-8")).text
    manifest = json.loads((directory / "manifest.json").read_text("utf-8"))
    assert manifest["classes"] == [str(one) for one in range(10)]
    captions = re.findall(r"#\d+: (\d) taken for (\d)", text)
    assert len(captions) == text.count("shown x") > 0
    assert all(label != taken for label, taken in captions)


def test_pictures_end_where_the_page_would_become_too_large(run, monkeypatch):
    directory, _ = run("one")
    [group] = content([directory], print).groups
    assert sum(map(len, group.gallery.values())) > 0
    monkeypatch.setattr("quintain.bench.report.page.gallery._MOST_BYTES", 100)
    [group] = content([directory], print).groups
    assert group.gallery == {}


def test_runs_that_do_not_compare_are_put_apart(run, quintain, tmp_path):
    one, _ = run("one")
    other, _ = run("two", seed=1)
    output = tmp_path / "both.html"
    assert quintain("report", one, other, "--output", output).code == 0
    text = Text(output.read_text("utf-8")).text
    assert "do not compare" in text
    assert text.count("Ranked by the worst case") == 2


def test_an_epsilon_is_one_however_it_is_written(run, quintain, tmp_path):
    first, _ = run("one", epsilons='["0.10", "0.20"]', leaderboard_epsilon='"0.20"')
    other, _ = run("two", epsilons='["0.1", "0.2", "0.25"]', leaderboard_epsilon='"0.2"')
    output = tmp_path / "both.html"
    assert quintain("report", first, other, "--output", output).code == 0
    text = Text(output.read_text("utf-8")).text
    assert "do not compare" not in text
    assert text.count("Ranked by the worst case") == 1
    for name in ("[one]", "[two]"):  # the same network twice, in two runs: told apart
        assert name in text


def test_the_same_model_looks_the_same_in_every_table(run):
    one, _ = run("one")
    other, _ = run("two", n_examples=7)
    shown = content([one, other], lambda text: None)
    assert len(shown.groups) == 2
    looks = [{row.values["model"]: row.number for row in group.rows} for group in shown.groups]
    assert looks[0] == looks[1]


def test_no_path_of_a_run_is_on_the_page(run, quintain, tmp_path):
    directory, _ = run("one")
    shutil.rmtree(directory / "records")  # as a result that is kept in a repository
    answer = quintain("report", directory)
    assert answer.code == 0, answer.err
    html = (directory / "report.html").read_text("utf-8")
    assert "one holds no records" in Text(html).text
    assert str(tmp_path) not in html


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "is not a run directory"),
        (["/etc/hosts"], "is a file, not a run directory"),
        (["RUN", "--output", "page.pdf"], "a page ends in .html"),
        (["RUN", "--output", "/dev/null/page.html"], "cannot be written"),
    ],
)
def test_mistakes_are_answered_in_a_line(run, quintain, arguments, said):
    directory, _ = run("one")
    answer = quintain("report", *(directory if one == "RUN" else one for one in arguments))
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_a_page_that_cannot_be_made_fails_no_run(run, monkeypatch):
    def broken(*_):
        raise RuntimeError("no page today")

    monkeypatch.setattr("quintain.bench.report.page.build.write_page", broken)
    directory, answer = run("one")
    assert "no page was written" in answer.err
    assert (directory / "leaderboard.csv").is_file()


def test_quiet_and_verbose(quintain, write_suite, tmp_path):
    suite = write_suite()
    quiet = quintain("run", suite, "--out", tmp_path / "quiet", "--quiet")
    assert quiet.err == ""
    assert "worst case over the attacks" in quiet.out
    verbose = quintain("run", suite, "--out", tmp_path / "loud", "--verbose")
    assert " of " in verbose.err
    assert "Leaderboard, by the worst case" in verbose.out
    log = (tmp_path / "loud" / "quintain.log").read_text("utf-8")
    assert "robust accuracy" in log
    assert str(tmp_path) not in log
