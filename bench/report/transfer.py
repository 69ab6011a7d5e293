"""The transfer matrix: each network's gradients against every other network. No torch here."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..store.cell import Cell
from .certificates import is_certificate
from .tables import curve_of

TRANSFER_COLUMNS = [
    "dataset",
    "norm",
    "source",
    "target",
    "epsilon",
    "attack_success_rate",
    "fidelity",
    "n_examples",
]


def transfers(cells: Iterable[Cell]) -> pd.DataFrame:
    """One row for each source x target x epsilon.

    attack_success_rate: of the examples attacked, which the target classifies rightly. fidelity:
    the share of these that the source classifies alike. n_examples: how many they are.
    """
    every = list(cells)
    clean = {_name(cell): cell.records for cell in every if not is_certificate(cell)}
    rows: list[dict[str, Any]] = []
    for cell in every:
        source = cell.about.get("transfer_source")
        if source is not None:
            rows += _rows(cell, source, clean.get((*_name(cell)[:2], source)))
    return pd.DataFrame(rows, columns=TRANSFER_COLUMNS)


def _name(cell: Cell) -> Sequence[str]:
    dataset, norm, model, defense = cell.defended_model
    return dataset, norm, f"{model} x {defense}"


def _rows(cell: Cell, source: str, theirs: pd.DataFrame | None) -> list[dict[str, Any]]:
    dataset, norm, target = _name(cell)
    curve = curve_of(cell.records, cell.about["epsilons"])
    attacked = cell.records[cell.records["under_attack"]].set_index("index")["clean_prediction"]
    fidelity = float("nan")
    if theirs is not None and len(attacked):
        seen = theirs.set_index("index")["clean_prediction"].reindex(attacked.index)
        fidelity = float(np.mean(seen.to_numpy() == attacked.to_numpy()))
    shared: dict[str, Any] = {"dataset": dataset, "norm": norm, "source": source, "target": target}
    shared |= {"fidelity": fidelity, "n_examples": len(attacked)}
    return [
        {**shared, **{name: row[name] for name in ("epsilon", "attack_success_rate")}}
        for row in curve.to_dict("records")
    ]
