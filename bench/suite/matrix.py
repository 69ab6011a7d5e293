"""Which attacks meet which subjects of a suite, and how they look at them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..api import registry
from ..api.defense import Defense
from ..api.errors import BadParameter
from ..api.flags import CERTIFIED
from ..engine.config import Certification, Member, check_members, single
from ..engine.targets import Targets
from ..victim.traits import Approach, Nature, misses, naive
from .config import NAIVELY, TRANSFER, AttackEntry, ModelEntry, Suite


@dataclass(frozen=True)
class Subject:
    """A model and the defense to train it with; None when it has its weights already.

    wrapper: the defense that the network of a checkpoint was trained with, and is wrapped by.
    nature: as it is declared before there is a network.
    """

    model: ModelEntry
    defense_title: str
    defense: Defense | None
    wrapper: Defense | None = None
    nature: Nature = Nature()

    @property
    def title(self) -> str:
        """What progress lines call it."""
        return f"{self.model.title} x {self.defense_title}"

    @property
    def is_users(self) -> bool:
        """Whether its network is made by code of the user's, which may read any file."""
        return registry.find("models", self.model.name).is_users

    @property
    def certifies(self) -> bool:
        """Whether its network will have certificates, as the defense says."""
        return getattr(self.defense or self.wrapper, "certifies", None) is not None


@dataclass(frozen=True)
class Sortie:
    """An attack, or what stands in its place; the subjects that it meets, how it looks at them.

    meets: numbers of subjects. source: the subject whose gradients it borrows, if it does.
    targets: the rule by which it gets classes to reach, if it is targeted.
    """

    entry: AttackEntry
    member: Member | Certification
    meets: frozenset[int]
    source: int | None = None
    approach: Approach = Approach()
    targets: Targets | None = None

    @property
    def naive(self) -> bool:
        """Whether it takes subjects that are not ordinary for such."""
        return not self.approach.surrogates


def sorties_of(
    attacks: Sequence[tuple[AttackEntry, Member]], suite: Suite, subjects: Sequence[Subject]
) -> list[Sortie]:
    """Every attack against all subjects, and beside it, where it needs help, without that help.

    Where the suite names targets, those that can aim also run targeted.

    Raises: BadParameter when it names targets and none can aim.
    """
    made = []
    for entry, member in attacks:
        white = member.attack.access == "white-box"
        samples = entry.eot_samples or suite.eot_samples
        adaptive = Approach(samples=samples) if white else Approach()
        everyone = frozenset(range(len(subjects)))
        made.append(Sortie(entry, member, everyone, approach=adaptive))
        parts = [one.attack for one in single([member])]
        helped: dict[Approach, set[int]] = {}
        for number, one in enumerate(subjects):
            if misses(parts, one.nature):
                helped.setdefault(naive(one.nature), set()).add(number)
        named = entry.model_copy(update={"label": entry.title + NAIVELY})
        for approach, meets in helped.items():
            made.append(Sortie(named, member, frozenset(meets), approach=approach))
        if suite.targets is not None and all(getattr(one, "targetable", True) for one in parts):
            title = f"{entry.title} ({suite.targets})"
            aiming = entry.model_copy(update={"label": title})
            made.append(Sortie(aiming, member, everyone, None, adaptive, suite.targets))
    if suite.targets is not None and all(one.targets is None for one in made):
        names = ", ".join(entry.title for entry, _ in attacks)
        raise BadParameter(f"targets = {suite.targets!r}: none of the attacks can aim ({names})")
    return made


def certification_of(subjects: Sequence[Subject]) -> list[Sortie]:
    """The certificates of the subjects that have some."""
    proving = frozenset(number for number, one in enumerate(subjects) if one.certifies)
    entry = AttackEntry(name=CERTIFIED)
    return [Sortie(entry, Certification(), proving)] if proving else []


def transfers_of(entry: AttackEntry, suite: Suite, subjects: Sequence[Subject]) -> list[Sortie]:
    """The transfer attack, by each subject's gradients.

    Raises: BadParameter when there is nothing to transfer, or it follows no gradient.
    """
    if len(subjects) < 2:
        raise BadParameter("it takes two networks at least")
    made = []
    everyone = frozenset(range(len(subjects)))
    for number, subject in enumerate(subjects):
        spec = registry.through(
            "attacks", entry.spec, {"name": "network", "network": subject.title}
        )
        built = registry.build("attacks", spec, besides=AttackEntry.model_fields)
        member = Member(built, entry.restarts)
        check_members([member], suite.norm, targeted=False)
        named = entry.model_copy(update={"label": TRANSFER + subject.title})
        made.append(Sortie(named, member, everyone - {number}, source=number))
    return made
