"""What a cell does with a defended model: attack it, or have it certify.

A task of another kind is one more class here, and a line in `matrix` that says whom it meets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..api import registry
from ..api.attack import declared
from ..api.epsilon import Epsilon
from ..api.flags import CERTIFIED
from ..api.progress import Progress
from ..engine.config import (
    AttackStage,
    CellConfig,
    flatten_cascade,
    follows_gradients,
    isolated,
)
from ..report.certificates import CERTIFICATE
from ..report.tables import curve_of
from ..store.hashing import configuration, hash_json
from .config import AttackEntry

if TYPE_CHECKING:  # plans are made without what computes their cells
    import pandas as pd

    from ..engine.adversarials import AdversarialStore
    from ..engine.case import Case, CellResult
    from ..engine.outcomes import Part
    from ..engine.preparation import Attackers
    from ..victim.precision_selection import PrecisionChoice

    _Inputs = tuple[
        Case,
        list[AttackStage],
        CellConfig,
        Progress,
        int | None,
        AdversarialStore | None,
        PrecisionChoice | None,
    ]

_STEPS = 100  # of an attack that does not say how many it takes
_GRADIENT = 3  # passes: forward, and backward, which takes twice as long


@dataclass(frozen=True)
class Resources:
    """What a task may use beside the case.

    store: where adversarial examples go, if they are saved. precision: what the search computes its
    gradients with, where that is known. attackers: what attacks that prepare themselves may use.
    earlier: a kind of task -> the records of each of its cells on the same defended model, of the
    examples at hand; only of kinds that the task names in `after`.
    """

    progress: Progress
    batch_size: int | None
    store: "AdversarialStore | None"
    precision: "PrecisionChoice | None"
    attackers: "Attackers"
    earlier: "Callable[[str], Sequence[pd.DataFrame]]"


class Task(Protocol):
    """What a cell does with a defended model: a value, made before there are networks.

    kind: "attack", "certificate". after: the kinds of task whose cells on the same defended model
    come first, whether or not they succeed.
    """

    kind: ClassVar[str]
    after: ClassVar[tuple[str, ...]]

    @property
    def title(self) -> str:
        """What the tables call it."""

    @property
    def settings(self) -> CellConfig:
        """How its cells are run."""

    @property
    def meets(self) -> frozenset[int]:
        """The numbers of the defended models that it meets."""

    @property
    def source(self) -> int | None:
        """The number of the defended model whose network it borrows, if it does."""

    @property
    def follows_gradients(self) -> bool:
        """Whether a faster copy of the network would be of use to it."""

    def made_of(self) -> Mapping[str, Any]:
        """What its cells' keys are made of, as JSON: all that can change a record."""

    def recipe(self) -> str:
        """Name what it is, on any grid of epsilons and under any title.

        Empty for what not every model meets, and for what ranks nothing.
        """

    def describe(self) -> Mapping[str, Any]:
        """What a record says of it: access, configuration, restarts, naive."""

    @property
    def passes(self) -> int:
        """About how many forward passes it takes for an example: cells are divided by it."""

    def run(self, case: "Case", resources: Resources, parts: "Sequence[Part]" = ()) -> "CellResult":
        """Compute the cell's records.

        parts: of all its examples, in their order, where these are computed already.

        Raises: CellError, BadData, BadParameter, and whatever the user's code does.
        """

    def part(self, case: "Case", resources: Resources) -> "Part":
        """Compute what is to be known of some of the cell's examples. case: of these alone.

        Raises: as `run`.
        """

    def summary(self, result: "CellResult", headline: Epsilon) -> str:
        """What a progress line says of the result."""


@dataclass(frozen=True)
class AttackTask:
    """An attack or a cascade: adaptive or naive, untargeted or targeted, or by another's gradients.

    Naive ones take defended models that are not ordinary for such.
    """

    kind: ClassVar[str] = "attack"
    after: ClassVar[tuple[str, ...]] = (CERTIFICATE,)  # which adversarial examples are held against

    entry: AttackEntry
    stage: AttackStage
    settings: CellConfig
    meets: frozenset[int]
    source: int | None = None

    @property
    def title(self) -> str:
        """What the tables call it."""
        return self.entry.title

    @property
    def naive(self) -> bool:
        """Whether it takes defended models that are not ordinary for such."""
        return not self.settings.adaptation.surrogates

    @property
    def follows_gradients(self) -> bool:
        """Whether it follows the network's own, and has no budget to keep exactly."""
        settings = self.settings
        stages = flatten_cascade([self.stage], settings.norm, targeted=settings.targeted)
        return follows_gradients(stages, settings)

    def made_of(self) -> Mapping[str, Any]:
        """The spec, what it is built into, its code, and all settings."""
        spec, settings = self.entry.spec, self.settings
        described = configuration(self.stage.attack)
        code = {registry.find("attacks", self.entry.name).code, *registry.code_of(spec)}
        alone = isolated(flatten_cascade([self.stage]), settings)
        return {
            "attack": spec,
            "configuration": described,
            "code": sorted(code | {*registry.code_of(described)}),
            "restarts": self.stage.restarts,
            "settings": configuration(settings),
            **({} if settings.targets is None else {"targets": settings.targets}),
            **({"epsilons": "each alone"} if alone else {}),
        }

    def recipe(self) -> str:
        """Empty for naive, transfer and targeted attacks."""
        settings = self.settings
        if self.naive or self.source is not None or settings.targets is not None:
            return ""
        made_of = {
            "configuration": configuration(self.stage.attack),
            "restarts": self.stage.restarts,
            "search": settings.search,
            "query_budget": settings.query_budget,
            "samples": settings.adaptation.samples,
        }
        return hash_json(made_of)[:12]

    def describe(self) -> Mapping[str, Any]:
        """The attack as it was built."""
        return {
            "access": self.stage.attack.access,
            "configuration": configuration(self.stage.attack),
            "restarts": self.stage.restarts,
            "naive": self.naive,
        }

    @property
    def passes(self) -> int:
        """All steps of all attempts, at two epsilons, or at all where the search is exhaustive."""
        settings = self.settings
        points = len(settings.grid) if settings.search == "exhaustive" else 2
        stages = flatten_cascade([self.stage], settings.norm, targeted=settings.targeted)
        steps: int = sum(
            one.restarts
            * declared(one.attack, "attempts_per_restart", 1)
            * getattr(one.attack, "steps", _STEPS)
            * (_GRADIENT if one.attack.access == "white-box" else 1)
            for one in stages
        )
        return points * steps * max(1, settings.adaptation.samples)

    def run(self, case: "Case", resources: Resources, parts: "Sequence[Part]" = ()) -> "CellResult":
        """Attack; what the model has proved is held against the adversarial examples."""
        from ..engine.cell import assess

        return assess(*self._attack(case, resources), parts)

    def part(self, case: "Case", resources: Resources) -> "Part":
        """Attack some of the examples."""
        from ..engine.cell import assess_part

        return assess_part(*self._attack(case, resources))

    def _attack(self, case: "Case", resources: Resources) -> "_Inputs":
        from ..engine.certify import remembered

        proofs = resources.earlier(CERTIFICATE)
        certificates = remembered(proofs[0]) if proofs else None
        return (
            replace(case, attackers=resources.attackers, certificates=certificates),
            [self.stage],
            self.settings,
            resources.progress,
            resources.batch_size,
            resources.store,
            resources.precision,
        )

    def summary(self, result: "CellResult", headline: Epsilon) -> str:
        """The robust accuracy."""
        return f"robust accuracy {_accuracy(result, headline):.3f} at {headline.text}"


@dataclass(frozen=True)
class CertificateTask:
    """The network's own certificates. There is nothing to set: what certifies is the network."""

    kind: ClassVar[str] = CERTIFICATE
    after: ClassVar[tuple[str, ...]] = ()

    settings: CellConfig
    meets: frozenset[int]
    title: str = CERTIFIED
    source: None = field(default=None, init=False)
    follows_gradients: bool = field(default=False, init=False)
    passes: int = field(default=1000, init=False)  # votes; a bound that is computed takes fewer

    def made_of(self) -> Mapping[str, Any]:
        """The settings that certificates depend on."""
        settings = self.settings
        return {
            "configuration": {},
            "norm": settings.norm,
            "grid": configuration(settings.grid),
            "seed": settings.seed,
        }

    def recipe(self) -> str:
        """Empty: certificates rank nothing."""
        return ""

    def describe(self) -> Mapping[str, Any]:
        """That it is no attack."""
        return {"access": CERTIFICATE, "configuration": {}, "restarts": 1, "naive": False}

    def run(self, case: "Case", resources: Resources, parts: "Sequence[Part]" = ()) -> "CellResult":
        """Have the network prove what it can of every example."""
        from ..engine.certify import certify

        return certify(case, self.settings, resources.progress, resources.batch_size, parts)

    def part(self, case: "Case", resources: Resources) -> "Part":
        """Have the network prove what it can of some of the examples."""
        from ..engine.certify import certify_part

        return certify_part(case, self.settings, resources.progress, resources.batch_size)

    def summary(self, result: "CellResult", headline: Epsilon) -> str:
        """The certified accuracy."""
        return f"certified accuracy {_accuracy(result, headline):.3f} at {headline.text}"


def _accuracy(result: "CellResult", headline: Epsilon) -> float:
    curve = curve_of(result.records, [one.text for one in result.grid]).set_index("epsilon")
    return float(curve.loc[headline.text, "robust_accuracy"])
