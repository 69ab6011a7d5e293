"""Records of older versions are read in today's names."""

import pandas as pd
import pytest

from quintain.bench.api.flags import Flag
from quintain.bench.store import records
from quintain.bench.store.cell import Cell
from quintain.bench.store.records import read_cell, write_cell


@pytest.mark.parametrize("values", [False, True], ids=["texts", "values"])
def test_columns_flags_and_keys_of_older_records_are_renamed_at_reading(
    values, tmp_path, monkeypatch
):
    old = {
        "index": [4],
        "member": [[0, -1]],
        "refuted": [True],
        "surplus": [0.5],
        "candidate_surplus": [[0.1, 0.2]],
    }
    flags = ["refuted-adversarials:1", "budget-ended:2", "plain"]
    if values:
        counted = [
            {"name": "refuted-adversarials", "count": 1},
            {"name": "budget-ended", "count": 2},
        ]
        flags = [*counted, {"name": "training", "about": "plain"}]
    monkeypatch.setattr(records, "stored", list)  # as older versions wrote them
    about = {"members": ["pgd"], "flags": flags, "seed": 0}
    write_cell(tmp_path / "old.parquet", Cell(about, pd.DataFrame(old)))

    cell = read_cell(tmp_path / "old.parquet")

    assert list(cell.records) == [
        "index",
        "stage",
        "not_reproduced",
        "rejection_margin",
        "candidate_rejection_margin",
    ]
    assert cell.records["stage"].iloc[0] == [0, -1]
    assert cell.about == {
        "stages": ["pgd"],
        "flags": ("not-reproduced:1", "query-budget-exhausted:2", "plain"),
        "seed": 0,
    }
    assert [one.name for one in cell.about["flags"]][:2] == [
        "not-reproduced",
        "query-budget-exhausted",
    ]


def test_todays_records_are_read_as_they_were_written(tmp_path):
    about = {"stages": ["pgd"], "flags": (Flag("not-reproduced", count=1),)}
    table = pd.DataFrame({"index": [4], "forward": [0]})
    write_cell(tmp_path / "new.parquet", Cell(about, table))

    cell = read_cell(tmp_path / "new.parquet")

    assert cell.about == about
    assert cell.records.equals(table)
