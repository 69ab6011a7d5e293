"""Which attacks meet which defended models of a suite, and how they look at them."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..api import registry
from ..api.defense import Defense
from ..api.errors import BadParameter
from ..engine.config import AttackStage, CellConfig, check_stages, flatten_cascade
from ..engine.targets import Targets
from ..victim.traits import Adaptation, ModelTraits, misses, naive
from .config import NAIVELY, TRANSFER, AttackEntry, ModelEntry, Suite
from .tasks import AttackTask, CertificateTask, Task


@dataclass(frozen=True)
class DefendedModel:
    """A model and the defense to train it with; None when it has its weights already.

    wrapper: the defense that the network of a checkpoint was trained with, and is wrapped by.
    traits: as it is declared before there is a network.
    """

    model: ModelEntry
    defense_title: str
    defense: Defense | None
    wrapper: Defense | None = None
    traits: ModelTraits = ModelTraits()

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


def cell_config(
    suite: Suite,
    entry: AttackEntry | None = None,
    adaptation: Adaptation = Adaptation(),
    targets: Targets | None = None,
) -> CellConfig:
    """How the cells of an attack are run, or of what has no entry."""
    return CellConfig(
        norm=suite.norm,
        grid=suite.epsilons,
        seed=suite.seed,
        search=(entry and entry.search) or suite.search,
        query_budget=(entry and entry.query_budget) or suite.query_budget,
        precision=suite.precision,
        adaptation=adaptation,
        targets=targets,
    )


def attack_tasks(
    attacks: Sequence[tuple[AttackEntry, AttackStage]],
    suite: Suite,
    defended_models: Sequence[DefendedModel],
) -> list[Task]:
    """Every attack against all defended models, and without help beside it, where it needs some.

    Where the suite names targets, those that can aim also run targeted.

    Raises: BadParameter when it names targets and none can aim.
    """
    made: list[Task] = []
    aimed = False
    everyone = frozenset(range(len(defended_models)))
    for entry, stage in attacks:
        white = stage.attack.access == "white-box"
        samples = entry.eot_samples or suite.eot_samples
        adaptive = Adaptation(samples=samples) if white else Adaptation()
        made.append(AttackTask(entry, stage, cell_config(suite, entry, adaptive), everyone))
        parts = [one.attack for one in flatten_cascade([stage])]
        helped: dict[Adaptation, set[int]] = {}
        for number, one in enumerate(defended_models):
            if misses(parts, one.traits):
                helped.setdefault(naive(one.traits), set()).add(number)
        named = entry.model_copy(update={"label": entry.title + NAIVELY})
        for adaptation, meets in helped.items():
            settings = cell_config(suite, entry, adaptation)
            made.append(AttackTask(named, stage, settings, frozenset(meets)))
        if suite.targets is not None and all(getattr(one, "targetable", True) for one in parts):
            aimed = True
            aiming = entry.model_copy(update={"label": f"{entry.title} ({suite.targets})"})
            settings = cell_config(suite, entry, adaptive, suite.targets)
            made.append(AttackTask(aiming, stage, settings, everyone))
    if suite.targets is not None and not aimed:
        names = ", ".join(entry.title for entry, _ in attacks)
        raise BadParameter(f"targets = {suite.targets!r}: none of the attacks can aim ({names})")
    return made


def certificate_tasks(suite: Suite, defended_models: Sequence[DefendedModel]) -> list[Task]:
    """The certificates of the defended models that have some."""
    proving = frozenset(number for number, one in enumerate(defended_models) if one.certifies)
    return [CertificateTask(cell_config(suite), proving)] if proving else []


def transfer_tasks(
    entry: AttackEntry, suite: Suite, defended_models: Sequence[DefendedModel]
) -> list[Task]:
    """The transfer attack, by each defended model's gradients.

    Raises: BadParameter when there is nothing to transfer, or it follows no gradient.
    """
    if len(defended_models) < 2:
        raise BadParameter("it takes two networks at least")
    made: list[Task] = []
    everyone = frozenset(range(len(defended_models)))
    settings = cell_config(suite, entry)
    for number, defended in enumerate(defended_models):
        spec = registry.through(
            "attacks", entry.spec, {"name": "network", "network": defended.title}
        )
        built = registry.build("attacks", spec, besides=AttackEntry.model_fields)
        stage = AttackStage(built, entry.restarts)
        check_stages([stage], suite.norm, targeted=False)
        named = entry.model_copy(update={"label": TRANSFER + defended.title})
        made.append(AttackTask(named, stage, settings, everyone - {number}, source=number))
    return made
