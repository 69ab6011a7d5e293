"""The checked-in results, the tables of the pages and the suites that they come from agree."""

import json
import tomllib
from pathlib import Path

import pytest

from quintain.bench.report.render import run_summary
from quintain.bench.report.write import read_table
from quintain.bench.suite.config import parse_suite

HOUSE = Path(__file__).parent.parent
QUICKSTART = HOUSE / "results" / "quickstart"


def between_marks(page, name):
    """What a page has between two marks."""
    text = (HOUSE / page).read_text(encoding="utf-8")
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]


def test_the_page_shows_what_the_quickstart_printed():
    tables = (read_table(QUICKSTART / f"{name}.csv") for name in ("tradeoff", "leaderboard"))
    printed = run_summary(*tables)
    assert between_marks("docs/measurements/quickstart.md", "quickstart") == printed
    leaderboard = between_marks("README.md", "quickstart")
    assert leaderboard.count("|") > 10
    assert leaderboard in printed


def test_the_quickstarts_results_are_of_the_suite_as_it_is():
    """Only keys that are younger than the results may be missing from their manifest."""
    bundled = (HOUSE / "bench" / "suite" / "bundled" / "quickstart.toml").read_text(
        encoding="utf-8"
    )
    kept = (QUICKSTART / "suite.toml").read_text(encoding="utf-8")
    assert tomllib.loads(kept) == tomllib.loads(bundled)
    resolved = parse_suite(bundled, "quickstart", "quickstart").resolved()
    before = json.loads((QUICKSTART / "manifest.json").read_text(encoding="utf-8"))["suite"]
    assert {key: resolved[key] for key in before} == before


def test_the_quickstarts_results_are_whole():
    manifest = json.loads((QUICKSTART / "manifest.json").read_text(encoding="utf-8"))
    cells = len(manifest["suite"]["models"]) * len(manifest["suite"]["defenses"])
    assert [one["status"] for one in manifest["cells"]] == ["done"] * cells * 4
    assert {one["threads"] for one in manifest["networks"]} == {1}
    assert manifest["finished"]


def test_the_quickstart_shows_what_it_is_there_to_show():
    """Networks that learnt; adversarial training that helps; attacks that do something."""
    table = read_table(QUICKSTART / "tradeoff.csv")
    headline = (
        table[table["epsilon"] == "0.08"].set_index(["model", "defense", "attack"]).sort_index()
    )
    for model in ("alexnet", "googlenet", "resnet"):
        plain, hardened = (headline.loc[model, one] for one in ("none", "adversarial-training"))
        assert plain["clean_accuracy"].min() >= 0.95
        assert hardened["clean_accuracy"].min() >= 0.75
        gain = hardened["robust_accuracy"] - plain["robust_accuracy"]
        assert gain["worst-case"] >= 0.1
        largest = table[(table["model"] == model) & (table["epsilon"] == "0.30")]
        broken = largest.set_index(["defense", "attack"])["robust_accuracy"]["none"]
        assert broken["transfer"] < 0.5
        assert broken["pgd-finite-differences"] < 0.5


@pytest.mark.parametrize("table", ["search", "defenses"])
def test_the_measurements_have_their_marks(table):
    assert between_marks(f"docs/measurements/{table}.md", table).count("|") > 10
