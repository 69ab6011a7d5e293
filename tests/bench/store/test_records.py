import os

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quintain.bench.api.errors import RunDirectoryError
from quintain.bench.store.cell import Cell, per_epsilon
from quintain.bench.store.records import read_cell, write_cell

ABOUT = {
    "model": "réseau",
    "epsilons": ["8/255", "0.10"],
    "epsilon_values": [8 / 255, 0.1],
    "query_budget": None,
    "report": {"fidelity": 0.1 + 0.2},
}


@pytest.fixture
def cell():
    records = pd.DataFrame(
        {
            "index": [3, 2**40],
            "label": [0, 1],
            "under_attack": [True, False],
            "smallest_epsilon": ["8/255", ""],
            "distance": [1 / 3, float("nan")],
            "broken": [[True, True], [False, False]],
        }
    )
    return Cell(ABOUT, records)


def test_a_cell_reads_back_as_it_was_written(tmp_path, cell):
    path = tmp_path / "records" / "one.parquet"
    write_cell(path, cell)
    again = read_cell(path)
    assert again.about == ABOUT
    assert [list(one) for one in again.records.pop("broken")] == [[True, True], [False, False]]
    pd.testing.assert_frame_equal(again.records, cell.records.drop(columns="broken"))


def test_lists_are_read_as_arrays_of_all_examples(tmp_path, cell):
    """As objects they would take ten times the memory: a run has thousands of cells."""
    write_cell(tmp_path / "one.parquet", cell)
    again = read_cell(tmp_path / "one.parquet").records
    assert again["broken"].dtype == pd.ArrowDtype(pa.list_(pa.bool_()))
    for rows in ([0, 1], [1, 0], [1], []):
        found = [per_epsilon(records.iloc[rows], "broken") for records in (again, cell.records)]
        assert [one.tolist() for one in found] == 2 * [
            [[[True] * 2, [False] * 2][row] for row in rows]
        ]
        assert [one.dtype for one in found] == 2 * [bool]


def test_other_tools_can_read_the_records(tmp_path, cell):
    write_cell(tmp_path / "one.parquet", cell)
    table = pd.read_parquet(tmp_path / "one.parquet")
    assert table["index"].tolist() == [3, 2**40]
    assert b"quintain" in pq.read_schema(tmp_path / "one.parquet").metadata


def test_a_failure_to_write_leaves_the_cell_that_was_there(tmp_path, cell, monkeypatch):
    path = tmp_path / "one.parquet"
    write_cell(path, cell)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_cell(path, Cell({}, cell.records))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_damaged_file_is_named(tmp_path, cell, keep):
    path = tmp_path / "one.parquet"
    write_cell(path, cell)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunDirectoryError, match=r"one\.parquet cannot be read"):
        read_cell(path)


def test_no_bit_that_flips_goes_unnoticed_and_changes_a_number(tmp_path, cell):
    path = tmp_path / "one.parquet"
    write_cell(path, cell)
    sound = path.read_bytes()
    refused = 0
    for at in range(0, len(sound), 23):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        try:
            again = read_cell(path)
        except RunDirectoryError:
            refused += 1
        else:  # a byte that nothing is read from
            assert again.about == cell.about
            assert again.records.to_json() == cell.records.to_json()
    assert refused > 20


def test_a_parquet_file_of_somebody_else_is_refused(tmp_path):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"index": [1, 2]}), path)
    with pytest.raises(RunDirectoryError, match=r"other\.parquet"):
        read_cell(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"gone\.parquet"):
        read_cell(tmp_path / "gone.parquet")
