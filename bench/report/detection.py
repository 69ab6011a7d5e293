"""How well models with a reject option detect adversarial inputs, from records. No torch here."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..store.cell import Cell, per_epsilon
from .tables import curve_of

DETECTION_COLUMNS = [
    "dataset",
    "model",
    "defense",
    "attack",
    "norm",
    "epsilon",
    "false_positive_rate_target",
    "false_positive_rate",
    "clean_accuracy",
    "accuracy",
    "detection_rate",
    "roc_auc",
    "n_adversarial",
    "n_examples",
    "naive",
    "seed",
]


def detections(cells: Iterable[Cell]) -> pd.DataFrame:
    """One row for each attack on a model with a reject option, at each epsilon."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        if "rejection_margin" in cell.records:
            about = cell.about
            shared = {name: about[name] for name in DETECTION_COLUMNS if name in about}
            table = detection_of(cell.records, about["epsilons"])
            rows += [{**shared, **row} for row in table.to_dict("records")]
    return pd.DataFrame(rows, columns=DETECTION_COLUMNS)


def detection_of(records: pd.DataFrame, epsilons: Sequence[str]) -> pd.DataFrame:
    """One row for each epsilon, from the records of one attack on a model with a reject option.

    false_positive_rate: of all clean images, right or wrong, the share that is rejected.
    clean_accuracy, accuracy: clean and robust accuracy; a clean image rejected is an error, an
    adversarial one rejected is not. n_adversarial: the examples with a candidate that fools the
    classifier. detection_rate: the share of these candidates that is rejected. roc_auc: the chance
    that such a candidate scores above a clean image, of all of them; NaN without candidates.
    """
    clean = records["rejection_margin"].to_numpy(dtype=np.float64)
    scores = per_epsilon(records, "candidate_rejection_margin")
    curve = curve_of(records, epsilons)
    rows = []
    for point, epsilon in enumerate(epsilons):
        candidates = scores[:, point][np.isfinite(scores[:, point])]
        there = len(candidates) > 0
        rows.append(
            {
                "epsilon": epsilon,
                "false_positive_rate": float(np.mean(clean > 0)),
                "clean_accuracy": float(curve["clean_accuracy"].iloc[point]),
                "accuracy": float(curve["robust_accuracy"].iloc[point]),
                "detection_rate": float(np.mean(candidates > 0)) if there else float("nan"),
                "roc_auc": _auc(clean, candidates) if there else float("nan"),
                "n_adversarial": len(candidates),
                "n_examples": len(records),
            }
        )
    return pd.DataFrame(rows)


def _auc(clean: NDArray[np.float64], candidates: NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score  # not when a module is only listed

    truth = np.r_[np.zeros(len(clean)), np.ones(len(candidates))]
    return float(roc_auc_score(truth, np.r_[clean, candidates]))
