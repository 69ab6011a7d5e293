"""The leaderboard as entries of RobustBench: their field names, percents as texts.

Source: the files `model_info/DATASET/THREAT/MODEL.json` of github.com/RobustBench/robustbench, and
what its leaderboard reads of them.
"""

from typing import Any

import pandas as pd

from ...api.flags import read_column

STANDARD = "autoattack"  # the cascade whose accuracy `autoattack_acc` is, and no other


def entries(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One entry for each row that has numbers.

    `autoattack_acc` is there for rows whose one attack is the standard cascade, complete and on all
    examples; other rows have `external`, the robust accuracy of the attacks that were run, and a
    `footnote` that names these. What a table does not know, such as authors, is left empty.
    """
    rows = table[table["robust_accuracy"].notna()].to_dict("records")
    return [_entry(one) for one in rows]


def _entry(row: dict[Any, Any]) -> dict[str, Any]:
    flags = read_column(str(row["flags"])) if row.get("flags") else ()
    attacks = str(row["attacks"])
    robust = _percent(row["robust_accuracy"])
    standard = attacks == STANDARD and not any(one.incomplete for one in flags)
    measured = {"autoattack_acc": robust} if standard else {"external": robust}
    notes = [f"{int(row['n_examples']):,} examples, {row['norm']}"]
    if not standard:
        notes.append(f"worst case over {', '.join(attacks.split(';'))}, not AutoAttack")
    if flags:
        notes.append(f"flags: {', '.join(flags)}")
    return {
        "link": "",
        "name": f"{row['model']} x {row['defense']}",
        "authors": "",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": str(row["dataset"]),
        "venue": "",
        "architecture": str(row["model"]),
        "eps": str(row["epsilon"]),
        "clean_acc": _percent(row["clean_accuracy"]),
        "reported": robust,
        **measured,
        "footnote": "; ".join(notes) + ".",
        "unreliable": bool(flags),
    }


def _percent(share: float) -> str:
    return f"{100.0 * share:.2f}"
