"""The tables of docs/results.md that are written from the code: flags, and columns of records.

`python -m quintain.bench.tools.results_page docs/results.md` writes them between the page's marks.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..api.flags import KINDS, Combine, Kind, Measure
from ..api.shared import outcome_columns
from ..api.shared.outcome_columns import RECORDS, Column

_SHOWN: dict[Measure, str] = {
    "count": "`{}:N`",
    "share": "`{}:P%`",
    "attack": "`{}:ATTACK`",
    "sentence": "`{}`, shown as a sentence",
}
_COMBINED: dict[Combine, str] = {
    "any": "from any attack",
    "all": "if all attacks have it",
    "largest": "with the largest count",
    "own": "by itself, not from an attack",
}
_TYPES = {"bool": "boolean", "int64": "integer", "float64": "number", "str": "text"}
_WORST: dict[outcome_columns.Combine, str] = {
    "same": "the same",
    "any": "any attack's",
    "any-below": "any attack's, here or at a smaller epsilon",
    "sum": "the sum",
    "min": "the smallest",
    "none": "has none",
}


def flags_table(kinds: Sequence[Kind] = KINDS) -> str:
    """Every kind of flag, in Markdown."""
    return _markdown(
        ["flag", "about", "meaning", "what to do", "the worst case has it"],
        (
            (
                _SHOWN[one.measure].format(one.name),
                one.scope,
                one.meaning + (f" (raised above {one.above:.0%})" if one.above else ""),
                one.remedy,
                _COMBINED[one.combine] + ("" if one.naive else "; not from naive attacks"),
            )
            for one in kinds
        ),
    )


def columns_table(columns: Sequence[Column] = RECORDS) -> str:
    """Every column of records, in Markdown."""
    return _markdown(
        ["column", "type", "meaning", "not attacked", "the worst case over attacks"],
        (
            (
                f"`{one.name}`",
                _TYPES[one.recorded_dtype] + (" for each epsilon" if one.is_list else ""),
                one.meaning,
                _fill(one) if one.kept else "",
                _WORST[one.worst_case],
            )
            for one in columns
        ),
    )


def _fill(column: Column) -> str:
    if column.dtype == "bool":
        return str(bool(column.fill)).lower()
    return "NaN" if column.fill != column.fill else str(column.fill)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_table(page: str, name: str, table: str) -> str:
    """The page with a table between the marks of its name.

    Raises: ValueError where it has no such marks.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"the page lacks the marks {begin} and {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def with_tables(page: str) -> str:
    """The page with both tables as they are now. Raises: ValueError."""
    return with_table(with_table(page, "flags", flags_table()), "record columns", columns_table())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text("utf-8")), "utf-8")
