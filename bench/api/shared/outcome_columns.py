"""What is known of an example after an attack: every column, declared once. Plain data, no torch.

From `COLUMNS` follow what is counted while a batch is under attack (`victim/counters.py`), what is
kept of all examples (`engine/outcomes.py`), the records and their types in Parquet, how the worst
case combines several attacks, and the table in docs/results.md. To add a column, add it here, and
compute it: a count by `counters.counts[name]`, anything else by `outcomes.NAME`; then let
`python -m quintain.bench.tools.results_page docs/results.md` write the page's table.
"""

from dataclasses import dataclass
from typing import Any, Literal

Dtype = Literal["bool", "int8", "int32", "int64", "float32", "float64", "str"]
Count = Literal["add", "add-at-epsilon", "first"]
Combine = Literal["same", "any", "any-below", "sum", "min", "none"]
RECORDED: dict[Dtype, Dtype] = {"int8": "int64", "int32": "int64", "float32": "float64"}


@dataclass(frozen=True)
class Column:
    """One fact about each example.

    dtype: in memory; records widen integers and floats to 64 bits (`recorded_dtype`).
    meaning: for people, in Markdown.
    per_epsilon: one value for each epsilon of the grid, not one for each example.
    fill: the value of examples that were not attacked, and where there is nothing to tell.
    start: the value in memory as long as there is nothing to tell; None: `fill`.
    kept: whether the engine keeps it while attacks run; else it is known from elsewhere.
    count: how what an attempt has counted joins what is kept. `add`: to the example's number.
        `add-at-epsilon`: to the number of the epsilon that was tried. `first`: at each epsilon, the
        number of queries at which something first happened, earlier attempts' included.
    summed: kept for each epsilon, recorded as the sum over them.
    recorded: whether records have it.
    worst_case: how several attacks' columns make that of the worst case over them. `same`: they
        are equal. `any`, `sum`, `min`: over the attacks. `any-below`: any attack's, at the epsilon
        or a smaller one. `none`: the worst case has no such column.
    """

    name: str
    dtype: Dtype
    meaning: str
    worst_case: Combine = "none"
    per_epsilon: bool = False
    fill: Any = 0
    start: Any = None
    kept: bool = True
    count: Count | None = None
    summed: bool = False
    recorded: bool = True

    @property
    def recorded_dtype(self) -> Dtype:
        """The type of its values in records."""
        return RECORDED.get(self.dtype, self.dtype)

    @property
    def is_list(self) -> bool:
        """Whether a record holds a list, with a value for each epsilon."""
        return self.per_epsilon and not self.summed


_NAN = float("nan")

COLUMNS = (
    Column("index", "int64", "the example's number in the test split", "same", kept=False),
    Column("label", "int64", "its class", "same", kept=False),
    Column("target", "int64", "the class to reach, -1 when untargeted", "same", kept=False),
    Column(
        "clean_prediction",
        "int64",
        "the class that the model gives the clean image. One that equals the number of classes is "
        "a rejection; of certificates -1: abstains",
        "same",
        kept=False,
    ),
    Column(
        "under_attack",
        "bool",
        "whether it was attacked; others are misclassified when clean, or have the target class",
        "same",
        kept=False,
    ),
    Column(
        "smallest_epsilon",
        "str",
        "the smallest epsilon that was broken, as written; empty when none was",
        kept=False,
    ),
    Column(
        "distance",
        "float64",
        "norm of the smallest adversarial perturbation that was verified",
        "min",
        fill=_NAN,
        start=float("inf"),
    ),
    Column(
        "broken",
        "bool",
        "whether an adversarial example was found and verified; of certificates whether the radius "
        "ends before the epsilon",
        "any-below",
        per_epsilon=True,
    ),
    Column(
        "attacked",
        "bool",
        "whether this very epsilon was tried; the others are inferred",
        "any",
        per_epsilon=True,
    ),
    Column("forward", "int64", "forward passes through the victim", "sum", count="add"),
    Column("backward", "int64", "backward passes through the victim", "sum", count="add"),
    Column(
        "queries",
        "int32",
        "questions that the attack asked the victim, over the whole curve",
        "sum",
        per_epsilon=True,
        count="add-at-epsilon",
        summed=True,
    ),
    Column(
        "not_reproduced",
        "bool",
        "whether an adversarial example was not one when the model was asked again",
        "any",
    ),
    Column(
        "solved",
        "int32",
        "queries that had been asked when it was first broken; 0: not, or by a white-box attack",
        per_epsilon=True,
        count="first",
    ),
    Column(
        "stage",
        "int8",
        "which attack of a cascade broke it, counted from 0; -1: none",
        per_epsilon=True,
        fill=-1,
    ),
    Column(
        "rejection_margin",
        "float64",
        "of models with a reject option: how far the clean image is from being rejected, positive "
        "where it is",
        "same",
        kept=False,
    ),
    Column(
        "candidate_rejection_margin",
        "float32",
        "of models with a reject option: the same of the candidate, which fools the classifier "
        "within the epsilon and is the least rejected of those that were judged; NaN without one",
        per_epsilon=True,
        fill=_NAN,
    ),
    Column(
        "contradicts",
        "bool",
        "of networks that certify: whether the certifier's own `predict` gave an adversarial "
        "example inside the certified radius another class",
        "any",
        kept=False,
    ),
    Column(
        "radius",
        "float64",
        "of certificates: the certified radius, in the cell's norm",
        kept=False,
    ),
    Column(
        "proved_radius",
        "float64",
        "of certificates: the certified radius, in the certifier's own norm",
        kept=False,
    ),
    Column(
        "moved",
        "bool",
        "an attempt that took all its steps ended away from the clean image",
        recorded=False,
    ),
    Column("stayed", "bool", "such an attempt ended at the clean image in vain", recorded=False),
    Column("cut_short", "bool", "the query budget ended before the search", recorded=False),
)
KEPT = tuple(one for one in COLUMNS if one.kept)
COUNTED = tuple(one for one in COLUMNS if one.count is not None)
RECORDS = tuple(one for one in COLUMNS if one.recorded)
