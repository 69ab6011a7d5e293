"""What a run says at its end."""

import pandas as pd
import pytest

from quintain.bench.report.summary import short_summary

EPSILONS = [f"{one}/255" for one in range(1, 21)]


def tables(names, flags=""):
    """Both tables of defended models with the same curve, flagged in one attack."""
    rows = [
        {
            "dataset": "digits", "norm": "Linf", "n_examples": 100, "model": name,
            "defense": "none", "attack": attack,
            "epsilon": epsilon, "clean_accuracy": 0.9,
            "robust_accuracy": 0.9 - 0.02 * place, "flags": flags if attack == "pgd" else "",
        }
        for name in names
        for attack in ("pgd", "square", "worst-case")
        for place, epsilon in enumerate(EPSILONS)
    ]  # fmt: skip
    board = [
        {"rank": number + 1, "model": name, "defense": "none", "epsilon": "8/255",
         "clean_accuracy": 0.9, "robust_accuracy": 0.76, "flags": ""}
        for number, name in enumerate(names)
    ]  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(board)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("names", [["a", "b"], ["x" * 300, "a\nb\x1b[2J"]])
def test_it_fits_the_window_with_a_row_for_each_defended_model(width, names):
    lines = short_summary(*tables(names), width).splitlines()
    rows = [one for one in lines if " none " in one]
    assert len(rows) == 2
    table = [one for one in lines if "8/255*" in one] + rows
    assert len(table) == 3  # the leaderboard's epsilon is always there
    assert max(map(len, table)) <= width
    assert all(one.isprintable() for one in lines)


def test_where_nothing_cuts_lines_every_epsilon_is_there():
    text = short_summary(*tables(["a"]), None)
    assert all(f"{one} " in f"{text} ".replace("*", " ").replace("\n", " ") for one in EPSILONS)
    assert "more epsilons" not in text


def test_flags_are_counted_by_the_cells_that_have_them():
    text = short_summary(*tables(["a", "b"], "no-progress:3;query-budget-exhausted:1"), 100)
    assert "Flags: no-progress (2 cells), query-budget-exhausted (2 cells)." in text
    assert "No flags." in short_summary(*tables(["a"]), 100)
