"""docs/attacks.md shows the attacks as they are."""

import re
from pathlib import Path

import pytest

from quintain.bench.api import registry
from quintain.bench.tools import attack_table

PAGE = Path(__file__).parents[3] / "docs" / "attacks.md"
COST = attack_table.HEADINGS.index("passes")


def shown():
    table = re.search(r"<!-- table[^>]*-->\n(.*?)<!-- /table -->", PAGE.read_text("utf-8"), re.S)
    lines = table.group(1).strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def rows(*, count_passes):
    return [one.row() for one in attack_table.entries(count_passes=count_passes)]


def test_the_page_lists_every_attack_as_its_plugin_describes_it():
    assert shown() == rows(count_passes=False)
    assert len(shown()) == len(registry.plugins("attacks"))
    assert all(one[COST] for one in shown())


def test_every_attack_names_its_source_unless_it_is_a_baseline():
    nameless = {one[0] for one in shown() if not one[-2]}
    assert nameless == {"`noise`", "`grey`", "`salt-and-pepper`"}


def test_every_attack_has_been_counted():
    """Another attack, or another name: python -m quintain.bench.tools.attack_table"""
    counted = attack_table.passes()
    assert list(counted) == [one.name for one in registry.plugins("attacks")]
    assert all(counted.values())


def test_the_table_runs_no_attack(quintain, monkeypatch):
    monkeypatch.delattr(attack_table, "assess")
    answer = quintain("list", "attacks", "--table")
    assert answer.code == 0
    lines = answer.out.strip().splitlines()[2:]
    assert [[cell.strip() for cell in one.strip("|").split("|")] for one in lines] == shown()


def test_an_attack_of_somebody_elses_is_listed_without_a_count():
    @registry.attack("elsewhere")
    class Elsewhere:
        """An attack of somebody else's."""

        access = "score"

        def run(self, problem):
            return problem.x

    (found,) = [one for one in attack_table.entries(count_passes=False) if one.name == "elsewhere"]
    assert (found.access, found.cost) == ("score", "")


@pytest.mark.slow
def test_the_page_counts_the_passes_that_they_take():
    """Of some searches the number depends on the last bits of logits, and so on the machine."""
    for page, taken in zip(shown(), rows(count_passes=True), strict=True):
        counts = [
            [int(one.replace(",", "")) for one in re.findall(r"[0-9,]+\d|\d", row[COST])]
            for row in (page, taken)
        ]
        assert counts[0] == pytest.approx(counts[1], rel=0.1), page


def test_there_is_a_table_of_attacks_only(quintain):
    answer = quintain("list", "models", "--table")
    assert answer.code == 2
    assert "quintain list attacks --table" in answer.err
