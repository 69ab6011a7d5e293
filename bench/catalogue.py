"""The attacks that there are, as a table: read off the plugins themselves."""

import inspect
import re
from dataclasses import dataclass
from typing import Any

import torch

from . import registry
from .conformance.ground import GRIDS, Ground, proving_ground, train_stand_in
from .datasets.memory import TensorImages
from .evaluation import Case, assess
from .preparation import Attackers
from .protocols import Silent
from .settings import Member, Settings, single
from .threat import NORMS, Epsilon, Norm

_PAPER = re.compile(r"Source:\s+([^;]*?\(arXiv:[\d.]+\))")
_OTHER = re.compile(r"Source:\s+([^.;]*)")
_CHECKED = re.compile(r"Checked\s+against\s+(.*?)\.(?:\s|$)", re.DOTALL)
_OUT_OF_REACH = 1e-6  # an epsilon that nothing breaks, so that every attack goes all the way
_EXAMPLES = 2


@dataclass(frozen=True)
class Entry:
    """One attack, with its default hyper-parameters.

    cost: passes for an example that resists it at one epsilon, "" when they were not counted.
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
    """All attacks, by name. count_passes: run each on two images, which takes a minute in all."""
    return [_entry(one, count_passes) for one in registry.plugins("attacks")]


def markdown(*, count_passes: bool = True) -> str:
    """The table in Markdown."""
    rows = [HEADINGS, ["---"] * len(HEADINGS)]
    rows += [one.row() for one in entries(count_passes=count_passes)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _entry(plugin: registry.Plugin, count_passes: bool) -> Entry:
    attack = registry.build("attacks", plugin.name)
    norms = [one for one in NORMS if all(one in _norms(part) for part in _stages(attack, one))]
    aims = all(
        getattr(part, "targetable", True) for part in _stages(attack, norms[0], targeted=True)
    )
    text = inspect.getdoc(plugin.load()) or ""
    source = _PAPER.search(text) or _OTHER.search(text)
    checked = _CHECKED.search(text)
    return Entry(
        name=plugin.name,
        access=attack.access,
        norms=", ".join(norms),
        targeted="yes" if aims else "no",
        cost=_cost(attack, norms[0]) if count_passes else "",
        source=_line(source.group(1)) if source else "",
        checked=_line(checked.group(1)) if checked else "",
    )


def _stages(attack: Any, norm: Norm, *, targeted: bool = False) -> list[Any]:
    """The attacks that it is made of in a norm."""
    return [one.attack for one in single([Member(attack)], norm, targeted=targeted)]


def _norms(attack: Any) -> tuple[Norm, ...]:
    claimed: tuple[Norm, ...] = getattr(attack, "norms", NORMS)
    return claimed


def _cost(attack: Any, norm: Norm) -> str:
    """Passes that one example takes which nothing breaks."""
    ground = proving_ground()
    epsilon = Epsilon.parse(_OUT_OF_REACH * GRIDS[norm][0])
    settings = Settings(norm, (epsilon,), search="exhaustive", precision="float32")
    records = assess(_case(ground), [Member(attack)], settings, Silent(), 16).records
    forward, backward = (int(records[name].max()) for name in ("forward", "backward"))
    if attack.access == "white-box":
        return f"{forward:,} forward, {backward:,} backward"
    return f"{forward:,} {'query' if forward == 1 else 'queries'}"


def _case(ground: Ground) -> Case:
    rows = torch.arange(_EXAMPLES)
    return Case(
        module=ground.network,
        device=torch.device("cpu"),
        images=TensorImages(ground.images[rows]),
        labels=ground.labels[rows],
        indices=rows,
        attackers=Attackers(ground.owned, train_stand_in),
    )


def _line(text: str) -> str:
    return " ".join(text.split())
