"""A finished cell: per-example records, and what they are about."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ..api.flags import Flag
from .hashing import hash_bytes


class Lost(NamedTuple):
    """A cell without records. why: it `failed`, or is `missing` since the run was interrupted.

    epsilon: where the leaderboard compares. recipe, examples: as of a cell; earlier versions
    wrote no recipe, for which the title then stands.
    """

    dataset: str
    norm: str
    model: str
    defense: str
    attack: str
    why: str = "failed"
    epsilon: str = ""
    recipe: str | None = None
    examples: str = ""

    @property
    def named(self) -> str:
        """What the attack is, for the comparison of rows."""
        return self.attack if self.recipe is None else self.recipe

    @property
    def defended_model(self) -> tuple[str, ...]:
        """What was to be attacked, as of a cell."""
        return self[:4]

    @property
    def flag(self) -> Flag:
        """What the worst case over the other attacks is flagged with."""
        return Flag(self.why, about=self.attack)


def per_epsilon(records: pd.DataFrame, name: str) -> "NDArray[Any]":
    """(N, E), a column that holds a list for each example: as computed, or as read from a file."""
    column = records[name].array
    if not len(column):
        return np.zeros((0, 0), dtype=bool)
    if not isinstance(column, pd.arrays.ArrowExtensionArray):
        return np.array(records[name].tolist())
    values = pa.chunked_array(column.__arrow_array__()).combine_chunks().flatten()
    return np.asarray(values).reshape(len(column), -1)


@dataclass(frozen=True)
class Cell:
    """One attack on one model: what it was, and a row for each example.

    about: dataset, model, defense, attack, access, norm, epsilons (texts), epsilon_values, seed,
    device, dtype, flags, report, parameters, key, weights_hash, leaderboard_epsilon, naive (whether
    it took a model without useful gradients for an ordinary one), recipe (what the attack is,
    whatever it is called; empty for those that not every model meets), examples (a hash of the
    images attacked), and, of a named cell, seconds: they are no part of the records' file, so that
    the same records are the same file.
    """

    about: dict[str, Any]
    records: pd.DataFrame

    def named(self, titles: Mapping[str, Any], seconds: float | None) -> "Cell":
        """The same cell as a run calls it, with the time that it took; NaN where nobody remembers.

        Records of earlier versions hold the time themselves.
        """
        known = self.about.get("seconds", math.nan) if seconds is None else seconds
        return Cell({**self.about, **titles, "seconds": known}, self.records)

    @property
    def defended_model(self) -> tuple[str, ...]:
        """What is attacked, by the names that people gave it."""
        return tuple(str(self.about[name]) for name in ("dataset", "norm", "model", "defense"))

    @property
    def weights(self) -> tuple[str, ...]:
        """Hashes of the weights it was made with: its network's, and a borrowed gradient's."""
        source = self.about.get("source_weights_hash")
        return (self.about["weights_hash"], *([] if source is None else [source]))

    @cached_property
    def experiment(self) -> tuple[object, ...]:
        """What cells must share to be combined: also weights, seed, grid, and the very examples."""
        about = (self.about[name] for name in ("weights_hash", "seed", "leaderboard_epsilon"))
        index, label = (self.records[name].to_numpy() for name in ("index", "label"))
        order = np.argsort(index)
        examples = hash_bytes(index[order].tobytes() + label[order].tobytes())
        return (*self.defended_model, *about, *self.about["epsilon_values"], examples)
