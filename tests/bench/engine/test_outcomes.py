"""What is kept of every example, and the records made of it, follow from the table of columns."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from quintain.bench import evaluate
from quintain.bench.api.shared.outcome_columns import COLUMNS, COUNTED, RECORDS
from quintain.bench.engine.outcomes import Outcomes
from quintain.bench.report.tables import combined_records
from quintain.bench.store.cell import Cell
from quintain.bench.store.records import write_cell

ALL, POINTS = 7, 3


def counts(generator, rows):
    """What some attempts counted; of "first" mostly nothing."""
    found = {}
    for one in COUNTED:
        shape = (rows, POINTS) if one.count == "first" else (rows,)
        found[one.name] = generator.integers(0, 9, shape)
        if one.count == "first":
            found[one.name] *= generator.random(shape) < 0.3
    return found


@pytest.mark.parametrize("alone", [False, True])
def test_counts_add_up_as_they_do_one_attempt_after_the_other(alone):
    """Against an example at a time, in words: what `add_counts` does for many at once."""
    generator = np.random.default_rng(0)
    outcomes = Outcomes(ALL, POINTS)
    expected = {
        "forward": [0] * ALL,
        "backward": [0] * ALL,
        "queries": [[0] * POINTS for _ in range(ALL)],
        "solved": [[0] * POINTS for _ in range(ALL)],
    }
    for _ in range(20):
        owners = generator.permutation(ALL)[:4]
        points = generator.integers(0, POINTS, 4)
        new = counts(generator, 4)
        outcomes.add_counts(new, owners, points, alone=alone)
        for row, (owner, point) in enumerate(zip(owners, points, strict=True)):
            spent = expected["queries"][owner]
            before = spent[point] if alone else sum(spent)
            for at, asked in enumerate(new["solved"][row]):
                if asked and not expected["solved"][owner][at] and (at == point or not alone):
                    expected["solved"][owner][at] = before + asked
            expected["forward"][owner] += new["forward"][row]
            expected["backward"][owner] += new["backward"][row]
            spent[point] += new["queries"][row]
    for name, values in expected.items():
        assert getattr(outcomes, name).tolist() == values, name
    assert np.count_nonzero(outcomes.solved) > ALL


def test_examples_that_were_not_attacked_are_filled():
    outcomes = Outcomes(2, POINTS)
    outcomes.broken[0, 1:] = True
    outcomes.distance[0] = 0.25
    outcomes.stage[0, 1:] = 0
    outcomes.queries[:] = [[1, 2, 3], [4, 5, 6]]
    spread = outcomes.spread(np.array([3, 1]), 4)
    assert spread["broken"].any(axis=1).tolist() == [False, False, False, True]
    assert spread["stage"].tolist() == [[-1] * 3, [-1] * 3, [-1] * 3, [-1, 0, 0]]
    assert spread["distance"].tolist()[3] == 0.25
    assert np.isnan(spread["distance"][:3]).all()  # of row 1, which was attacked, nothing was found
    assert spread["queries"].tolist() == [0, 15, 0, 6]
    assert "candidate_rejection_margin" not in spread
    assert "moved" not in spread
    rejecting = Outcomes(2, POINTS, rejecting=True).spread(np.arange(2), 2)
    assert np.isnan(rejecting["candidate_rejection_margin"]).all()


def test_there_is_no_column_that_was_not_declared():
    with pytest.raises(AttributeError, match="no column 'brokn'"):
        _ = Outcomes(1, 1).brokn
    names = [one.name for one in COLUMNS]
    assert len({*names}) == len(names)


def test_records_have_the_declared_columns_in_order_and_type(digits, tmp_path):
    x, y = digits.images[:20], digits.labels[:20]
    records = evaluate(digits.module, x, y, "fgsm", epsilons=[0.05, 0.1]).records
    declared = {one.name: one for one in RECORDS}
    assert list(records) == [name for name in declared if name in records]
    for name in records:
        one = declared[name]
        if one.is_list:
            assert all(len(values) == 2 for values in records[name])
        elif one.dtype != "str":
            assert records[name].dtype == one.recorded_dtype
    for rows in (records, records[:0]):  # with and without values that tell a type
        write_cell(tmp_path / "one.parquet", Cell({}, rows))
        for field in pq.read_schema(tmp_path / "one.parquet"):
            kind = {"bool": "bool", "int64": "int64", "float64": "double", "str": "string"}[
                declared[field.name].recorded_dtype
            ]
            wanted = f"list<element: {kind}>" if declared[field.name].is_list else kind
            assert str(field.type).replace("item", "element") == wanted, field


def test_the_worst_case_combines_each_column_as_it_says():
    first = pd.DataFrame(
        {
            "index": [5, 3],
            "label": [1, 0],
            "smallest_epsilon": ["0.1", ""],
            "distance": [0.07, float("nan")],
            "broken": [[True, False], [False, False]],
            "attacked": [[True, False], [True, False]],
            "forward": [10, 20],
            "not_reproduced": [False, True],
            "stage": [[0, -1], [-1, -1]],
        }
    )
    second = first[::-1].assign(
        distance=[0.3, 0.2],
        broken=[[False, True], [False, True]],
        attacked=[[False, True], [False, False]],
        forward=[1, 2],
        not_reproduced=[False, False],
        contradicts=[True, False],
    )
    worst = combined_records([first, second]).to_dict("list")
    for name in ("broken", "attacked"):
        worst[name] = [one.tolist() for one in worst[name]]
    assert worst == {
        "index": [3, 5],
        "label": [0, 1],
        "distance": [0.3, 0.07],
        "broken": [[False, True], [True, True]],
        "attacked": [[True, True], [True, False]],
        "forward": [21, 12],
        "not_reproduced": [True, False],
        "contradicts": [True, False],
    }
