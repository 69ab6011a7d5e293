"""Certificates in the tables: queries over their records and those of attacks. No torch here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..store.cell import Cell

CERTIFICATE = "certificate"  # the access of cells that hold certificates
_OF_ATTACKS = ["attack_success_rate", "forward_mean", "backward_mean", "attacked"]
_OF_ATTACKS += ["queries_mean", "queries_median"]


def is_certificate(cell: "Cell") -> bool:
    """Whether a cell holds certificates rather than what an attack found."""
    return bool(cell.about.get("access") == CERTIFICATE)


def without_attack(curve: pd.DataFrame) -> pd.DataFrame:
    """Leave out of a curve what only attacks have."""
    return curve.assign(**dict.fromkeys(_OF_ATTACKS, float("nan")), verified=0)


def contradicted(attacks: Sequence["Cell"], certificates: "Cell | None") -> NDArray[np.bool_]:
    """(N,) bool, by index: an attack's find contradicts the example's certificate.

    An attack that ran beside the certificates has asked the certifier about its adversarial
    examples again. One that did not, because they came later, is believed: its nearest adversarial
    example within the radius counts.
    """
    found = np.zeros(len(attacks[0].records), dtype=bool)
    if certificates is None:
        return found
    by_index = [cell.records.sort_values("index") for cell in attacks]
    proved = certificates.records.sort_values("index")
    right = (proved["clean_prediction"] == proved["label"]).to_numpy()
    for records in by_index:
        if "contradicts" in records:
            found |= records["contradicts"].to_numpy(dtype=bool)
        else:
            inside = records["distance"].to_numpy() < proved["radius"].to_numpy()
            found |= right & inside
    return found


def certified_columns(records: pd.DataFrame) -> pd.DataFrame:
    """What a person wants to see of each certificate: index, label, prediction, radius."""
    columns: dict[Any, Any] = {"clean_prediction": "prediction"}
    return records[["index", "label", "clean_prediction", "radius"]].rename(columns=columns)
