"""Two rows on the same examples: which is better, by how much, and where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..api.errors import BadParameter, RunDirectoryError, closest
from ..api.shared.safe_text import markdown
from ..store.cell import Cell
from ..store.run_directory import read_cells
from .formats.markdown import markdown_table
from .statistics import (
    PairedComparison,
    compare_pairs,
    holm,
    smallest_detectable_difference,
)
from .tables import WORST_CASE, withstood, worst_cases

ALPHA = 0.05


@dataclass(frozen=True)
class Pair:
    """Two rows' outcomes of the same examples.

    compared: the second less the first. worse_p: of the one-sided test that the second is no worse.
    changed: index, label, before and after of each example that only one of them withstands.
    """

    title: str
    epsilon: str
    before: float
    after: float
    n_examples: int
    compared: PairedComparison
    worse_p: float
    changed: pd.DataFrame

    @property
    def is_worse(self) -> bool:
        """Whether the second is significantly worse: one-sided exact McNemar, p < 0.05."""
        return self.worse_p < ALPHA


def compare_runs(
    directories: Sequence[Path],
    rows: Sequence[str] = (),
    epsilon: str | None = None,
    attack: str = WORST_CASE,
) -> list[Pair]:
    """Compare the rows of the same names in two runs, or two rows of one run.

    rows: titles "MODEL x DEFENSE"; of two runs which rows, by default all they share; of one run
    which two. epsilon: as the suites wrote it; by default the leaderboard's. attack: by its title.

    Raises: RunDirectoryError; BadParameter for rows, epsilons and attacks that there are not, and
    for what does not compare.
    """
    found = [_rows(one, attack) for one in directories]
    if len(found) == 1:
        if len(rows) != 2:
            raise BadParameter(
                f"say which two rows of {directories[0]} to compare, with --row twice; there are "
                + ", ".join(found[0])
            )
        before, after = (_row(found[0], one, directories[0]) for one in rows)
        return [_pair(f"{rows[1]} against {rows[0]}", before, after, epsilon)]
    if len(found) != 2:
        raise BadParameter(f"{len(found)} run directories: there is one pair at a time, or one run")
    titles = list(rows) or [one for one in found[0] if one in found[1]]
    if not titles:
        raise BadParameter(
            f"no row of {directories[0]} is called as one of {directories[1]}: "
            f"{', '.join(found[0])}; {', '.join(found[1])}"
        )
    first, second = zip(found, directories, strict=True)
    return [
        _pair(one, _row(first[0], one, first[1]), _row(second[0], one, second[1]), epsilon)
        for one in titles
    ]


def described(pairs: Sequence[Pair]) -> str:
    """The comparison in words, a line a pair, and as a table where there are several."""
    lines = [_sentence(one) for one in pairs]
    if len(pairs) > 1:
        lines += ["", markdown_table(comparison_table(pairs).map(_shown))]
    return "\n".join(lines)


def comparison_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """A row a pair. p_holm: adjusted for the number of pairs."""
    adjusted = holm([one.compared.p_value for one in pairs])
    return pd.DataFrame(
        {
            "row": one.title,
            "epsilon": one.epsilon,
            "before": one.before,
            "after": one.after,
            "difference": one.compared.difference.value,
            "low": one.compared.difference.low,
            "high": one.compared.difference.high,
            "gained": one.compared.only_first,
            "lost": one.compared.only_second,
            "p": one.compared.p_value,
            "p_holm": p,
        }
        for one, p in zip(pairs, adjusted, strict=True)
    )


def changed_examples(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Every example that one withstands and the other does not."""
    tables = [one.changed.assign(row=one.title) for one in pairs]
    return pd.concat(tables, ignore_index=True)[["row", "index", "label", "before", "after"]]


def _rows(directory: Path, attack: str) -> dict[str, Cell]:
    """The rows of a run by their titles."""
    cells, lost = read_cells(directory)
    if attack == WORST_CASE:
        found = worst_cases(cells, lost)
    else:
        found = [one for one in cells if one.about["attack"] == attack]
        if not found:
            near = closest(attack, {str(one.about["attack"]) for one in cells})
            raise BadParameter(f"{directory} has no attack '{attack}'{near}")
    if not found:
        raise RunDirectoryError(f"no finished cell in {directory}")
    return {f"{one.about['model']} x {one.about['defense']}": one for one in found}


def _row(rows: dict[str, Cell], title: str, directory: Path) -> Cell:
    if title not in rows:
        near = closest(title, rows) or f"; there are {', '.join(rows)}"
        raise BadParameter(f"{directory} has no row '{title}'{near}")
    return rows[title]


def _pair(title: str, before: Cell, after: Cell, epsilon: str | None) -> Pair:
    """Raises: BadParameter where the two do not compare."""
    for what in ("dataset", "norm"):
        if before.about[what] != after.about[what]:
            raise BadParameter(
                f"{title}: another {what}, {before.about[what]} and {after.about[what]}"
            )
    at = epsilon or str(before.about["leaderboard_epsilon"])
    for one in (before, after):
        if at not in one.about["epsilons"]:
            grid = ", ".join(one.about["epsilons"])
            raise BadParameter(f"{title}: no epsilon {at} as it is written; there are {grid}")
    first, second = (one.records.sort_values("index") for one in (before, after))
    same = ["index", "label"]
    if not np.array_equal(first[same].to_numpy(), second[same].to_numpy()):
        raise BadParameter(f"{title}: other examples: rows compare on the same ones alone")
    old, new = withstood(before, at), withstood(after, at)
    compared = compare_pairs(new, old)
    differ = old != new
    changed = first[same][differ].assign(before=old[differ], after=new[differ])
    return Pair(
        title,
        at,
        float(old.mean()),
        float(new.mean()),
        len(old),
        compared,
        _one_sided(compared.only_second, compared.only_first),
        changed,
    )


def _one_sided(lost: int, gained: int) -> float:
    """The exact probability of as many losses or more, if losses and gains are as likely."""
    from scipy.stats import binomtest

    total = lost + gained
    return float(binomtest(lost, total, 0.5, alternative="greater").pvalue) if total else 1.0


def _sentence(one: Pair) -> str:
    found = one.compared
    gap = found.difference
    changed = found.only_first + found.only_second
    outcome = "no significant difference"
    if found.p_value < ALPHA:
        outcome = "significantly better" if gap.value > 0 else "significantly worse"
    seen = smallest_detectable_difference(one.n_examples, changed / one.n_examples)
    limit = "" if np.isnan(seen) else f"; with this many disagreeing, {seen:.3f} could be seen"
    return (
        f"{markdown(one.title)} at {one.epsilon}: {one.before:.3f} before, {one.after:.3f} after, "
        f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], {outcome} "
        f"(exact McNemar, p = {found.p_value:.3g}); {changed} of {one.n_examples} examples "
        f"changed, {found.only_first} gained, {found.only_second} lost{limit}."
    )


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
