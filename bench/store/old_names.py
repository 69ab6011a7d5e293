"""Columns, flags and keys of older records: the one place where they are renamed."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

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


def renamed(about: Mapping[str, Any], records: pa.Table) -> tuple[dict[str, Any], pa.Table]:
    """A cell as it was read, in today's names."""
    now = {KEYS.get(name, name): value for name, value in about.items()}
    if "flags" in now:
        now["flags"] = flags(now["flags"])
    return now, records.rename_columns([COLUMNS.get(one, one) for one in records.column_names])


def flags(written: Iterable[Any]) -> list[Any]:
    """Flags, as values or as texts such as `name:count`, in today's names."""
    return [_flag(one) for one in written]


def _flag(written: Any) -> Any:
    if isinstance(written, Mapping):
        return {**written, "name": FLAGS.get(str(written.get("name")), written.get("name"))}
    name, colon, count = str(written).partition(":")
    return FLAGS.get(name, name) + colon + count
