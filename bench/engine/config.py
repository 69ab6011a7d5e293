"""What a cell is run with: attacks, and the settings that they share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..api.attack import Alternatives, Attack, Cascade, WholeAttack
from ..api.epsilon import NORMS, Epsilon, Norm
from ..api.errors import BadParameter
from ..victim.fast_copy import Precision
from ..victim.traits import Adaptation
from .targets import Targets

SearchName = Literal["bracket", "exhaustive"]


@dataclass(frozen=True)
class AttackStage:
    """One attack, or a cascade, and how often each starts again on an example that resists."""

    attack: Attack[Any] | WholeAttack | Cascade | Alternatives
    restarts: int = 1


def flatten_cascade(
    stages: Iterable[AttackStage], norm: Norm | None = None, *, targeted: bool = False
) -> list[AttackStage]:
    """The attacks one by one, those of cascades in their place.

    norm, targeted: what alternatives are chosen by; the first where none will do. Without a norm
    all of them are given.
    """
    flat: list[AttackStage] = []
    for one in stages:
        if isinstance(one.attack, Cascade):
            inner: Iterable[Any] = one.attack.attacks
        elif isinstance(one.attack, Alternatives):
            fitting = [a for a in one.attack.attacks if _works(a, norm, targeted=targeted)]
            inner = one.attack.attacks if norm is None else (fitting or one.attack.attacks)[:1]
        else:
            flat.append(one)
            continue
        parts = (AttackStage(attack, one.restarts) for attack in inner)
        flat += flatten_cascade(parts, norm, targeted=targeted)
    return flat


def _works(attack: Any, norm: Norm | None, *, targeted: bool) -> bool:
    """Whether an attack says that it works in a norm, and can aim if it has to."""
    norms = getattr(attack, "norms", NORMS)
    return norm in norms and (not targeted or getattr(attack, "targetable", True))


@dataclass(frozen=True)
class CellConfig:
    """How a cell is run.

    query_budget: queries for each example, over the whole curve (for each epsilon of an exhaustive
    search). early_leaving=False keeps broken examples to the last step, for timing work.
    precision: of the gradients that the search follows; "auto" is what a trial on the model finds
    to be clearly faster and faithful. Predictions are always the float32 model's. adaptation: how
    attacks look at a model without gradients, with random ones, or with a reject option. One that
    does not know of the rejection searches exhaustively, whatever is said. targets: the rule by
    which targeted attacks get their classes, where those are not given; it makes them targeted.
    """

    norm: Norm
    grid: tuple[Epsilon, ...]
    seed: int = 0
    search: SearchName = "bracket"
    query_budget: int | None = None
    early_leaving: bool = True
    targeted: bool = False
    precision: Precision = "auto"
    adaptation: Adaptation = Adaptation()
    targets: Targets | None = field(default=None, repr=False)  # keys name it where it is set

    def __post_init__(self) -> None:
        if self.targets is not None:
            object.__setattr__(self, "targeted", True)
        if (
            self.detector_unaware
        ):  # an adversarial example nearer to the image is not likelier to be let through
            object.__setattr__(self, "search", "exhaustive")

    @property
    def detector_unaware(self) -> bool:
        """Whether the attacks do not know that the model has a reject option."""
        return self.adaptation.detector_unaware

    @property
    def radii(self) -> tuple[float, ...]:
        """The grid as numbers."""
        return tuple(one.value for one in self.grid)


def check_stages(stages: Sequence[AttackStage], norm: Norm, *, targeted: bool) -> None:
    """Refuse what an attack says it cannot do.

    Raises: BadParameter.
    """
    for stage in flatten_cascade(stages, norm, targeted=targeted):
        kind = called(stage.attack)
        norms = getattr(stage.attack, "norms", None)
        if norms is not None and norm not in norms:
            raise BadParameter(f"{kind} works in {', '.join(norms)}, not in {norm}")
        if targeted and not getattr(stage.attack, "targetable", True):
            raise BadParameter(f"{kind} cannot aim at target classes")


def isolated(stages: Sequence[AttackStage], settings: CellConfig) -> bool:
    """Whether a bracket search infers nothing: a single step is another attack at every epsilon.

    So is an attack in one piece, such as another library's, that says that its failures tell
    nothing of smaller epsilons. Not in a cascade, which stands for the worst of its attacks.
    """
    if settings.search != "bracket" or len(stages) != 1 or nearest(stages[0].attack):
        return False
    attack: Any = stages[0].attack
    if isinstance(attack, WholeAttack):
        return not getattr(attack, "monotone", True)
    return bool(getattr(attack, "steps", None) == 1)


def follows_gradients(stages: Sequence[AttackStage], settings: CellConfig) -> bool:
    """Whether there are gradients of the victim's to compute faster; a budget is kept exactly.

    stages: without cascades. Whole attacks differentiate the victim itself.
    """
    stepping = (one.attack for one in stages if not isinstance(one.attack, WholeAttack))
    white = any(attack.access == "white-box" for attack in stepping)
    return white and settings.query_budget is None


def nearest(attack: Any) -> bool:
    """Whether an attack looks for the nearest adversarial point, whatever the epsilon."""
    return bool(getattr(attack, "minimum_norm", False))


def called(attack: object) -> str:
    """What an attack calls itself, or its class's name."""
    return str(getattr(attack, "title", type(attack).__name__))
