"""Charts, tables and limits of the page, of networks that there are not."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from made_up_page import made_up

from quintain.bench.report.page import build, sections
from quintain.bench.report.page.charts import WORST


def changed(content, tradeoff):
    """The same content with other rows of attacks."""
    return replace(content, groups=[replace(content.groups[0], tradeoff=tradeoff)])


def test_an_attack_looks_the_same_in_every_chart():
    content = made_up(3)
    table = content.groups[0].tradeoff
    lacking = changed(content, table[(table["model"] != "model-1") | (table["attack"] != "pgd")])
    charts = sections.by_attack(lacking.groups[0])
    assert [dict(map(reversed, one.legend))["square"] for one in charts] == [1, 1, 1]
    assert all(one.legend[0] == (WORST, "worst-case") for one in charts)
    assert all("band" in one.svg for one in charts)


def test_a_chart_has_its_numbers_as_a_table():
    content = made_up(2)
    chart = sections.curves(content.groups[0])
    assert list(chart.columns) == ["0", "2/255", "4/255", "8/255", "16/255"]
    table = content.groups[0].tradeoff
    own = table[(table["model"] == "model-1") & (table["attack"] == "worst-case")]
    clean, worth = own["clean_accuracy"].iloc[0], own["robust_accuracy"]
    expected = [f"{one:.2f}" for one in (clean, *worth)]
    assert chart.numbers[1] == ("model-1 x d1", expected)
    assert f'<td class="num">{expected[1]}</td>' in build.page(content)


def test_flags_of_single_attacks_are_named_with_what_to_do():
    content = made_up(2)
    table = content.groups[0].tradeoff.assign(flags="")
    table.loc[table["attack"] == "square", "flags"] = "query-budget-exhausted:7"
    [found] = sections.flagged(changed(content, table).groups[0])
    assert list(found.cells) == [
        "model-0 x d0 x square: query-budget-exhausted:7",
        "model-1 x d1 x square: query-budget-exhausted:7",
    ]
    html = build.page(changed(content, table))
    assert "Flags of single attacks" in html
    assert "give a larger <code>query_budget</code>" in html
    assert "Flags of single attacks" not in build.page(content)


def test_thirty_rows_with_all_their_tables_are_below_a_megabyte():
    content = made_up(30, pictures=34)  # 102 pictures of noise
    table = content.groups[0].tradeoff
    html = build.page(replace(content, files={"tradeoff.csv": table, "leaderboard.csv": table}))
    assert len(html.encode()) < 1_000_000


def test_tables_that_are_too_large_are_named_and_left_out():
    content = made_up(2)
    large = pd.DataFrame({"text": ["x" * 1000] * 12_000})
    html = build.page(replace(content, files={"large.csv": large, **content.files}))
    assert len(html.encode()) < 3_500_000
    assert "large.csv is too large for this page" in html
    assert 'download="leaderboard.csv"' in html


@pytest.mark.parametrize("text", ["a,b", 'say "x"', "50%", "#1", "é\u05e9", "a\nb", "<b>&amp;"])
def test_embedded_tables_are_what_they_were(text):
    from urllib.parse import unquote

    from quintain.bench.store.spreadsheet import to_csv

    table = pd.DataFrame({"text": [text]})
    html = build.page(replace(made_up(1), files={"t.csv": table}))
    [uri] = re.findall(r'href="data:text/csv;charset=utf-8,([^"]*)" download="t.csv"', html)
    assert unquote(uri) == to_csv(table)
