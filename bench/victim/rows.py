"""Rows of a table of tensors: a dataclass or dict whose tensors share their leading axis.

What the engine does to the examples in its batch, whatever an attack's state holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


def take(table: T, rows: Tensor) -> T:
    """Return the chosen rows, (n,) int64, of each tensor."""
    return _each(lambda one: one.index_select(0, rows), table)


def put(table: T, rows: Tensor, values: T) -> T:
    """Return the table with some rows (n,) replaced by the rows of `values`."""
    return _each(lambda one, new: one.index_copy(0, rows, new.to(one.dtype)), table, values)


def join(tables: Sequence[T]) -> T:
    """Return the rows of all tables, one after another."""
    return _each(lambda *parts: torch.cat(parts), *tables)


def write(table: Any, rows: Tensor, values: Any) -> None:
    """Replace some rows (n,) in place."""
    _each(lambda one, new: one.index_copy_(0, rows, new), table, values)


def overwrite(table: Any, values: Any) -> None:
    """Replace all rows in place."""
    _each(Tensor.copy_, table, values)


def clone(table: T) -> T:
    """Return a copy that shares no memory, neither with the table nor within itself."""
    return _each(Tensor.clone, table)


def choose(indicator: Tensor, table: T, other: T) -> T:
    """Return the table's rows where the indicator, (B,) bool, holds, and the other's elsewhere."""

    def chosen(one: Tensor, old: Tensor) -> Tensor:
        return torch.where(indicator.reshape(-1, *[1] * (one.dim() - 1)), one, old)

    return _each(chosen, table, other)


def where(indicator: Tensor) -> Tensor:
    """(B,) bool -> (n,) int64: the rows that hold."""
    return torch.nonzero(indicator).flatten()


def _each(act: Callable[..., Tensor], table: T, *others: Any) -> T:
    """The table with what `act` makes of each of its tensors, and of the others' beside it."""
    made: Any
    if isinstance(table, Tensor):
        made = act(table, *others)
    elif isinstance(table, dict):
        made = {key: _each(act, one, *[o[key] for o in others]) for key, one in table.items()}
    elif is_dataclass(table) and not isinstance(table, type):
        names = [one.name for one in fields(table)]
        made = {n: _each(act, getattr(table, n), *[getattr(o, n) for o in others]) for n in names}
        made = replace(table, **made)
    else:
        raise TypeError(f"a state holds tensors and dataclasses of tensors, not {table!r}")
    return cast(T, made)
