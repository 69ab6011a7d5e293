"""What a cell is run with: attacks, and the settings that they share."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from .adaptive import Approach
from .protocols import Alternatives, Attack, Cascade, WholeAttack
from .targets import Targets
from .threat import NORMS, Epsilon, Norm

SearchName = Literal["bracket", "exhaustive"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Member:
    """One attack, or a cascade, and how often each starts anew on an example that resists."""

    attack: Attack[Any] | WholeAttack | Cascade | Alternatives
    restarts: int = 1


@dataclass(frozen=True)
class Certification:
    """In an attack's place: the network's own certificates. There is nothing to set."""

    version: ClassVar[str] = "1"


def single(
    members: Iterable[Member], norm: Norm | None = None, *, targeted: bool = False
) -> list[Member]:
    """The attacks one by one, those of cascades in their place.

    norm, targeted: what alternatives are chosen by; the first where none will do. Without a norm
    all of them are given.
    """
    flat: list[Member] = []
    for one in members:
        if isinstance(one.attack, Cascade):
            inner: Iterable[Any] = one.attack.attacks
        elif isinstance(one.attack, Alternatives):
            fitting = [a for a in one.attack.attacks if _works(a, norm, targeted=targeted)]
            inner = one.attack.attacks if norm is None else (fitting or one.attack.attacks)[:1]
        else:
            flat.append(one)
            continue
        parts = (Member(attack, one.restarts) for attack in inner)
        flat += single(parts, norm, targeted=targeted)
    return flat


def _works(attack: Any, norm: Norm | None, *, targeted: bool) -> bool:
    """Whether an attack says that it works in a norm, and can aim if it has to."""
    norms = getattr(attack, "norms", NORMS)
    return norm in norms and (not targeted or getattr(attack, "targetable", True))


@dataclass(frozen=True)
class Settings:
    """How a cell is run.

    query_budget: queries for each example, over the whole curve (for each epsilon of an exhaustive
    search). early_leaving=False keeps broken examples to the last step, for timing work.
    precision: of the gradients that the search follows; "auto" is what a trial on the model finds
    to be clearly faster and faithful. Verdicts are always the float32 model's. approach: how
    attacks look at a model without gradients, with random ones, or that may reject. One that does
    not know of the rejection searches exhaustively, whatever is said. targets: the rule by which
    targeted attacks get their classes, where those are not given; it makes them targeted.
    """

    norm: Norm
    grid: tuple[Epsilon, ...]
    seed: int = 0
    search: SearchName = "bracket"
    query_budget: int | None = None
    early_leaving: bool = True
    targeted: bool = False
    precision: Precision = "auto"
    approach: Approach = Approach()
    targets: Targets | None = field(default=None, repr=False)  # keys name it where it is set

    def __post_init__(self) -> None:
        if self.targets is not None:
            object.__setattr__(self, "targeted", True)
        if self.oblivious:  # a find nearer to the image is not likelier to be let through
            object.__setattr__(self, "search", "exhaustive")

    @property
    def oblivious(self) -> bool:
        """Whether the attacks do not know that the model may reject."""
        return self.approach.oblivious

    @property
    def radii(self) -> tuple[float, ...]:
        """The grid as numbers."""
        return tuple(one.value for one in self.grid)
