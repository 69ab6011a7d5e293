"""The table of flags in docs/results.md: written from the kinds that `flags` declares.

`python -m quintain.bench.tools.flags_page docs/results.md` writes it between the page's marks.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..api.flags import KINDS, Combine, Kind, Measure

BEGIN, END = "<!-- flags -->", "<!-- end of flags -->"
_HEAD = ["flag", "about", "meaning", "what to do", "the worst case has it"]
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


def flags_table(kinds: Sequence[Kind] = KINDS) -> str:
    """Every kind of flag, in Markdown."""
    rows = [
        (
            _SHOWN[one.measure].format(one.name),
            one.scope,
            one.meaning + (f" (raised above {one.above:.0%})" if one.above else ""),
            one.remedy,
            _COMBINED[one.combine] + ("" if one.naive else "; not from naive attacks"),
        )
        for one in kinds
    ]
    lines = [_HEAD, ["---"] * len(_HEAD), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_table(page: str) -> str:
    """The page with the table between its marks. Raises: ValueError where it has no marks."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{flags_table()}\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text("utf-8")), "utf-8")
