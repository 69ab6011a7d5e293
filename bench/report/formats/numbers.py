"""Numbers as text."""

from collections.abc import Callable
from typing import Any

import pandas as pd


def blank_or(form: str) -> Callable[[Any], str]:
    """Format a number; nothing where there is none: None, NaN or NA.

    >>> from quintain.bench.report.formats.numbers import blank_or
    >>> blank_or("{:.2f}")(0.5), blank_or("{:.2f}")(None)
    ('0.50', '')
    """
    return lambda value: "" if value is None or pd.isna(value) else form.format(value)
