"""Tables in Markdown."""

from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from ...api.shared.safe_text import markdown


def markdown_table(table: pd.DataFrame, align: Sequence[str] | None = None) -> str:
    """A table in Markdown, its texts escaped."""
    escaped = table.map(lambda value: markdown(str(value)))
    return str(
        tabulate(
            escaped,
            headers="keys",
            tablefmt="github",
            showindex=False,
            disable_numparse=True,
            colalign=align,
        )
    )
