"""Tables as they were written: read back from CSV. No torch here."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from ..store.spreadsheet import restored
from .query_curves import QUERIES_COLUMNS
from .tables import LEADERBOARD_COLUMNS, TRADEOFF_COLUMNS

_TEXTS = ["dataset", "model", "defense", "attack", "access", "norm", "epsilon", "flags"]
_TEXTS += ["device", "dtype", "attacks", "config_hash", "weights_hash", "search"]
_TEXTS += ["examples_hash", "attacks_hash"]
_COUNTS = [
    "rank",
    "rank_low",
    "rank_high",
    "tie_group",
    "n_examples",
    "verified",
    "seed",
    "setup_queries",
    "parameters",
]
_COUNTS += ["query_budget", "queries", "n_attacked", "successes"]
_TYPES = {
    **dict.fromkeys(TRADEOFF_COLUMNS + LEADERBOARD_COLUMNS + QUERIES_COLUMNS, pa.float64()),
    **dict.fromkeys(_TEXTS, pa.string()),
    **dict.fromkeys(_COUNTS, pa.int64()),
}


def read_table(path: Path) -> pd.DataFrame:
    """Read a table as it was when it was written.

    No title is taken for a number or for nothing, and none keeps what makes it inert in the file.
    """
    table: pd.DataFrame = csv.read_csv(
        path,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=_TYPES, null_values=[""], strings_can_be_null=False
        ),
    ).to_pandas()
    return whole_counts(restored(table))


def whole_counts(table: pd.DataFrame) -> pd.DataFrame:
    """The same table, whose columns of counts are whole numbers also where some are missing.

    Otherwise pandas makes floats of them, and writes 20 as 20.0.
    """
    gaps = [name for name in _COUNTS if name in table and table[name].isna().any()]
    return table.astype(dict.fromkeys(gaps, "Int64"))
