"""One table over several trainings of the same networks: what training again changes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from ..api.shared.safe_text import short
from ..store.atomic import write_text
from ..store.spreadsheet import to_csv
from .statistics import mean_interval
from .stored_tables import read_table

_ROW = ["dataset", "norm", "epsilon", "model", "defense"]


def write_trainings(directories: Mapping[int, Path], file: Path) -> pd.DataFrame | None:
    """Write the table over run directories, by training seed; None where none has a leaderboard."""
    boards = {
        seed: read_table(one / "leaderboard.csv")
        for seed, one in directories.items()
        if (one / "leaderboard.csv").is_file()
    }
    if not boards:
        return None
    table = over_trainings(boards)
    write_text(file, to_csv(table))
    return table


def over_trainings(boards: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """A row for each defended model, the best mean robust accuracy first.

    boards: training seed -> leaderboard, all on the same examples.

    `robust_accuracy` and `clean_accuracy` are means over the trainings, `_sd` their standard
    deviations, `_low` and `_high` Student's 95% interval of the mean. Apart from these is
    `sampling_error`, the standard error that the sample of images gives one training's
    robust accuracy.
    """
    joined = pd.concat([one.assign(training_seed=seed) for seed, one in boards.items()])
    rows = []
    for key, group in joined.groupby(_ROW, sort=False):
        robust = group["robust_accuracy"].to_numpy(dtype=float)
        row = dict(zip(_ROW, key, strict=True)) | {"n_examples": group["n_examples"].iloc[0]}
        row["trainings"] = int(np.isfinite(robust).sum())
        for column in ("clean_accuracy", "robust_accuracy"):
            found = mean_interval(group[column].to_numpy(dtype=float))
            row |= {
                column: found.value,
                f"{column}_sd": group[column].std(ddof=1),
                f"{column}_low": found.low,
                f"{column}_high": found.high,
            }
        row["robust_accuracy_least"], row["robust_accuracy_most"] = robust.min(), robust.max()
        error = np.sqrt(robust * (1.0 - robust) / float(row["n_examples"]))
        row["sampling_error"] = float(np.mean(error))
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values("robust_accuracy", ascending=False, ignore_index=True, kind="stable")


def trainings_summary(table: pd.DataFrame) -> str:
    """The table for people."""
    shown = pd.DataFrame(
        {
            "model": table["model"].map(short),
            "defense": table["defense"].map(short),
            "trainings": table["trainings"],
            "clean": _with_spread(table, "clean_accuracy"),
            "robust": _with_spread(table, "robust_accuracy"),
            "least to most": [
                f"{low:.3f} to {high:.3f}"
                for low, high in zip(
                    table["robust_accuracy_least"], table["robust_accuracy_most"], strict=True
                )
            ],
            "sampling error": table["sampling_error"].map("{:.3f}".format),
        }
    )
    first = table.iloc[0]
    head = (
        f"Over trainings, on {first['dataset']}, {first['norm']}, epsilon {first['epsilon']}, "
        f"{int(first['n_examples']):,} examples (mean +- standard deviation of trainings):"
    )
    body = tabulate(shown, headers="keys", tablefmt="plain", showindex=False, disable_numparse=True)
    return f"{head}\n\n{body}"


def _with_spread(table: pd.DataFrame, column: str) -> list[str]:
    return [
        f"{mean:.3f} +- {spread:.3f}"
        for mean, spread in zip(table[column], table[f"{column}_sd"], strict=True)
    ]
