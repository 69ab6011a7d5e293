"""The attacks that there are, as a table: read off the plugins themselves.

What each costs is counted once and kept in attack_passes.json, since counting takes a minute of
processor time: `python -m quintain.bench.tools.attack_table` counts again, and a slow test
compares.
"""

import inspect
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..api import registry
from ..api.plugins.plugin import Plugin
from ..api.progress import Silent
from ..api.threat import NORMS, Epsilon, Norm
from ..datasets.in_memory import TensorImages
from ..engine.case import Case
from ..engine.cell import assess
from ..engine.config import AttackStage, CellConfig
from ..engine.preparation import Attackers
from .conformance.fixture_model import GRIDS, FixtureModel, fixture_model, train_stand_in
from .information import attack_facts, source_of

_CHECKED = re.compile(r"Checked\s+against\s+(.*?)\.(?:\s|$)", re.DOTALL)
_OUT_OF_REACH = 1e-6  # an epsilon that nothing breaks, so that every attack goes all the way
_EXAMPLES = 2
_PASSES = Path(__file__).with_name("attack_passes.json")


@dataclass(frozen=True)
class Entry:
    """One attack, with its default hyper-parameters.

    cost: passes for an example that resists it at one epsilon, "" where they were not counted.
    """

    name: str
    access: str
    norms: str
    targeted: str
    cost: str
    source: str
    checked: str

    def row(self) -> list[str]:
        """Cells of a table, the name as code."""
        rest = (self.access, self.norms, self.targeted, self.cost, self.source, self.checked)
        return [f"`{self.name}`", *rest]


HEADINGS = ["attack", "access", "norms", "targeted", "passes", "source", "checked against"]


def entries(*, count_passes: bool) -> list[Entry]:
    """All attacks, by name. count_passes: run each on two images, instead of what is kept."""
    kept = passes()
    return [
        _entry(one, None if count_passes else kept.get(one.name, ""))
        for one in registry.plugins("attacks")
    ]


def passes() -> dict[str, str]:
    """What each attack of ours costs, as it was counted."""
    counted: dict[str, str] = json.loads(_PASSES.read_text("utf-8"))
    return counted


def count() -> None:
    """Count again what each attack costs, and keep it."""
    counted = {one.name: one.cost for one in entries(count_passes=True)}
    _PASSES.write_text(json.dumps(counted, indent=1) + "\n", "utf-8")


def markdown() -> str:
    """The table in Markdown."""
    rows = [HEADINGS, ["---"] * len(HEADINGS)]
    rows += [one.row() for one in entries(count_passes=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _entry(plugin: Plugin, cost: str | None) -> Entry:
    """One row. cost: as it is known; None to count it."""
    attack = registry.build("attacks", plugin.name)
    facts = attack_facts(attack)
    text = inspect.getdoc(plugin.load()) or ""
    checked = _CHECKED.search(text)
    norm = next(one for one in NORMS if one in facts["norms"])
    return Entry(
        name=plugin.name,
        **facts,
        cost=_cost(attack, norm) if cost is None else cost,
        source=source_of(text),
        checked=" ".join(checked[1].split()) if checked else "",
    )


def _cost(attack: Any, norm: Norm) -> str:
    """Passes that one example takes which nothing breaks."""
    fixture = fixture_model()
    epsilon = Epsilon.parse(_OUT_OF_REACH * GRIDS[norm][0])
    settings = CellConfig(norm, (epsilon,), search="exhaustive", precision="float32")
    records = assess(_case(fixture), [AttackStage(attack)], settings, Silent(), 16).records
    forward, backward = (int(records[name].max()) for name in ("forward", "backward"))
    if attack.access == "white-box":
        return f"{forward:,} forward, {backward:,} backward"
    return f"{forward:,} {'query' if forward == 1 else 'queries'}"


def _case(fixture: FixtureModel) -> Case:
    rows = torch.arange(_EXAMPLES)
    return Case(
        module=fixture.network,
        device=torch.device("cpu"),
        images=TensorImages(fixture.images[rows]),
        labels=fixture.labels[rows],
        indices=rows,
        attackers=Attackers(fixture.owned, train_stand_in),
    )


if __name__ == "__main__":
    count()
