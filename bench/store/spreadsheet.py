"""Tables as CSV in which no text is a formula, and back. No torch here."""

import csv
import re
from collections.abc import Callable
from typing import Any

import pandas as pd

# A cell that begins so is run when the file is opened; where the list separator is a semicolon,
# cells begin after semicolons too.
_FORMULA = "'*[-=+@\t\r\n\uff0d\uff1d\uff0b\uff20]"
_RUNS = re.compile(f"(?:^|(?<=;))(?={_FORMULA})")
_QUOTED = re.compile(f"(?:^|(?<=;))'(?={_FORMULA})")


def to_csv(table: pd.DataFrame) -> str:
    """A table as CSV. Texts that a spreadsheet would run get an apostrophe in front.

    They are those that begin with =, +, -, @ (also full-width), a tab or a line's end, after
    apostrophes or none, at the start or after a semicolon. Numbers stay as they are.
    """
    # Python's writer leaves carriage returns bare where lines end otherwise; readers split there
    returns = any("\r" in one for name in table.columns for one in _texts(table[name]))
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    return str(_mapped(table, guarded).to_csv(index=False, lineterminator="\n", quoting=quoting))


def restored(table: pd.DataFrame) -> pd.DataFrame:
    """A table that was read from what `to_csv` wrote, with its texts as they were."""
    return _mapped(table, unguarded)


def guarded(text: str) -> str:
    """One text as `to_csv` writes it.

    >>> guarded("=1+1"), guarded("pgd;-x"), guarded("a=b")
    ("'=1+1", "pgd;'-x", 'a=b')
    """
    return _RUNS.sub("'", text)


def unguarded(text: str) -> str:
    """The text that `guarded` made this of."""
    return _QUOTED.sub("", text)


def _mapped(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table, or a copy where a text changes. Each different text is looked at once."""
    for name in table.columns:
        column = table[name]
        changed = {one: new for one in _texts(column) if (new := change(one)) != one}
        if changed:
            values = [changed.get(one, one) if isinstance(one, str) else one for one in column]
            table = table.assign(**{name: pd.Series(values, table.index, dtype=column.dtype)})
    return table


def _texts(column: "pd.Series[Any]") -> list[str]:
    """The different texts of a column."""
    if pd.api.types.is_numeric_dtype(column):
        return []
    return [one for one in column.unique() if isinstance(one, str)]
