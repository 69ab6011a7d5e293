"""Records of older versions are read in today's names."""

import pandas as pd

from quintain.bench.store.cell import Cell
from quintain.bench.store.records import read_cell, write_cell


def test_columns_flags_and_keys_of_older_records_are_renamed_at_reading(tmp_path):
    old = {
        "index": [4],
        "member": [[0, -1]],
        "refuted": [True],
        "surplus": [0.5],
        "candidate_surplus": [[0.1, 0.2]],
    }
    flags = ["refuted-adversarials:1", "budget-ended:2", "other:3", "plain"]
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
    assert cell.records["stage"].iloc[0].tolist() == [0, -1]
    assert cell.about == {
        "stages": ["pgd"],
        "flags": ["not-reproduced:1", "query-budget-exhausted:2", "other:3", "plain"],
        "seed": 0,
    }


def test_todays_records_are_read_as_they_were_written(tmp_path):
    about = {"stages": ["pgd"], "flags": ["not-reproduced:1"]}
    records = pd.DataFrame({"index": [4], "stage": [0]})
    write_cell(tmp_path / "new.parquet", Cell(about, records))

    cell = read_cell(tmp_path / "new.parquet")

    assert cell.about == about
    assert cell.records.equals(records)
