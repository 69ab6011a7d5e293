"""The tables of docs/results.md say what the code does."""

from pathlib import Path

import pytest

from quintain.bench.api.flags import KINDS
from quintain.bench.api.shared.outcome_columns import RECORDS
from quintain.bench.tools.results_page import columns_table, flags_table, with_table, with_tables

RESULTS = Path(__file__).parents[3] / "docs" / "results.md"


def test_the_page_shows_the_tables_as_they_are_now():
    page = RESULTS.read_text("utf-8")
    made = with_tables(page)
    assert made == page, "run python -m quintain.bench.tools.results_page docs/results.md"


def test_a_table_has_a_line_for_each_kind_and_column():
    assert len(flags_table().splitlines()) == 2 + len(KINDS)
    lines = columns_table().splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == [one.name for one in RECORDS]
    assert "integer for each epsilon" in lines[[one.name for one in RECORDS].index("solved")]


def test_a_table_is_put_between_its_marks():
    page = "a <!-- x --> old <!-- end of x --> b"
    assert with_table(page, "x", "new") == "a <!-- x -->\nnew\n<!-- end of x --> b"
    for lacking in ("nothing", "<!-- x -->", "<!-- end of x -->"):
        with pytest.raises(ValueError, match="lacks the marks"):
            with_table(lacking, "x", "new")
