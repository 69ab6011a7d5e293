"""Columns, flags and keys of older records: the one place where they are renamed."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

COLUMNS: Mapping[str, str] = {
    "member": "stage",
    "refuted": "not_reproduced",
    "surplus": "rejection_margin",
    "candidate_surplus": "candidate_rejection_margin",
}
FLAGS: Mapping[str, str] = {
    "refuted-adversarials": "not-reproduced",
    "budget-ended": "query-budget-exhausted",
}
KEYS: Mapping[str, str] = {"members": "stages"}  # of what is stored with the records


def renamed(about: Mapping[str, Any], records: pd.DataFrame) -> tuple[dict[str, Any], pd.DataFrame]:
    """A cell as it was read, in today's names."""
    now = {KEYS.get(name, name): value for name, value in about.items()}
    if "flags" in now:
        now["flags"] = flags(now["flags"])
    columns: dict[Any, Any] = {**COLUMNS}
    return now, records.rename(columns=columns)


def flags(written: Iterable[str]) -> list[str]:
    """Flags, `name` or `name:count`, in today's names."""
    return [_flag(one) for one in written]


def _flag(written: str) -> str:
    name, colon, count = written.partition(":")
    return FLAGS.get(name, name) + colon + count
