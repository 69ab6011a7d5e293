"""Rows of a table of tensors: a dataclass whose tensors share their leading axis.

What the engine does to the examples in its batch, whatever an attack's state holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


def take(table: T, rows: Tensor) -> T:
    """Return the chosen rows, (n,) int64, of a tensor or of each tensor of a dataclass."""
    if isinstance(table, Tensor):
        return cast(T, table.index_select(0, rows))
    return _over_fields(table, lambda value: take(value, rows))


def put(table: T, rows: Tensor, values: T) -> T:
    """Return the table with some rows (n,) replaced by the rows of `values`."""
    if isinstance(table, Tensor):
        return cast(T, table.index_copy(0, rows, cast(Tensor, values).to(table.dtype)))
    return _over_fields(table, lambda value, other: put(value, rows, other), values)


def join(tables: Sequence[T]) -> T:
    """Return the rows of all tables, one after another."""
    first, *others = tables
    if isinstance(first, Tensor):
        return cast(T, torch.cat(cast(list[Tensor], list(tables))))
    joined: T = _over_fields(first, lambda *values: join(values), *others)
    return joined


def write(table: Any, rows: Tensor, values: Any) -> None:
    """Replace some rows (n,) in place."""
    if isinstance(table, Tensor):
        table.index_copy_(0, rows, values)
    else:
        for one in fields(table):
            write(getattr(table, one.name), rows, getattr(values, one.name))


def overwrite(table: Any, values: Any) -> None:
    """Replace all rows in place."""
    if isinstance(table, Tensor):
        table.copy_(values)
    else:
        for one in fields(table):
            overwrite(getattr(table, one.name), getattr(values, one.name))


def clone(table: T) -> T:
    """Return a copy that shares no memory, neither with the table nor within itself."""
    if isinstance(table, Tensor):
        return cast(T, table.clone())
    copied: T = _over_fields(table, clone)
    return copied


def choose(indicator: Tensor, table: T, other: T) -> T:
    """Return the table's rows where the indicator, (B,) bool, holds, and the other's elsewhere."""
    if isinstance(table, Tensor):
        shape = (-1, *[1] * (table.dim() - 1))
        return cast(T, torch.where(indicator.reshape(shape), table, cast(Tensor, other)))
    return _over_fields(table, lambda value, old: choose(indicator, value, old), other)


def where(indicator: Tensor) -> Tensor:
    """(B,) bool -> (n,) int64: the rows that hold."""
    return torch.nonzero(indicator).flatten()


def _over_fields(table: T, act: Callable[..., Any], *others: T) -> T:
    if not is_dataclass(table) or isinstance(table, type):
        raise TypeError(f"a state holds tensors and dataclasses of tensors, not {table!r}")
    changed = {
        one.name: act(getattr(table, one.name), *(getattr(other, one.name) for other in others))
        for one in fields(table)
    }
    made: T = replace(table, **changed)
    return made
