"""One cell: attacks on one model over one grid of epsilons, judged, verified, as records."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..api.defense import Certifier
from ..api.errors import CellError
from ..api.flags import CONTRADICTED, raised
from ..api.progress import Progress
from ..api.shared import black_box
from ..api.shared.threads import suited_threads
from ..datasets.in_memory import SelectedImages
from ..victim.model import Network, frozen, named_dtype
from ..victim.precision_selection import PrecisionChoice, choose
from ..victim.traits import ModelTraits
from ..victim.unchanged_weights import Untouched, restored
from ..victim.voting import prediction
from .adversarials import AdversarialStore, InMemoryStore
from .cascade import CascadeRunner
from .case import Case, CellResult, check_classes, fitting, opened
from .certify import Audit
from .config import (
    AttackStage,
    CellConfig,
    called,
    check_stages,
    flatten_cascade,
    follows_gradients,
)
from .diagnostics.model_checks import flags_of_model
from .diagnostics.sanity_checks import clean_logits, predictions, rejection_margins, sanity_flags
from .loop import AttackInputs
from .outcomes import Outcomes, Part, joined, records_of
from .preparation import prepare, surrogates
from .target_choice import choose_targets
from .targets import NO_TARGET, Targets

CHECK_EVERY = 4  # steps on a GPU; a look waits for the device, an idle row wastes at most 3


def assess(
    case: Case,
    stages: Sequence[AttackStage],
    settings: CellConfig,
    progress: Progress,
    batch_size: int | None = None,
    store: AdversarialStore | None = None,
    choice: PrecisionChoice | None = None,
    parts: Sequence[Part] = (),
) -> CellResult:
    """Attack, verify, and record every example.

    store: where adversarial examples go; only an In-memory store can be asked for them later.
    choice: what the search computes its gradients with, where that is known already. parts: what
    `assess_part` gave for the examples, in their order, where they have been attacked already.

    Raises: BadData for images or labels that cannot be used; CellError when the model or an attack
    misbehaves; BadParameter.
    """
    with _under_attack(case, stages, settings, batch_size) as cell:
        if not parts:
            part, choice = cell.attack(progress, store, choice)
            parts = [part]
        return cell.conclude(joined(parts), choice, store)


def assess_part(
    case: Case,
    stages: Sequence[AttackStage],
    settings: CellConfig,
    progress: Progress,
    batch_size: int | None = None,
    store: AdversarialStore | None = None,
    choice: PrecisionChoice | None = None,
) -> Part:
    """Attack some examples of a cell: `assess` takes all parts and makes the records of them.

    case: of these examples alone. The rest is as for `assess`, and must be the same for every part;
    where the attack follows gradients, so must `choice`.

    Raises: as `assess`.
    """
    with _under_attack(case, stages, settings, batch_size) as cell:
        return cell.attack(progress, store, choice)[0]


@contextmanager
def _under_attack(
    case: Case, stages: Sequence[AttackStage], settings: CellConfig, batch_size: int | None
) -> Iterator["_CellRun"]:
    """Make a case ready. Within, its module is frozen; afterwards it is as before.

    Raises: BadData; BadParameter.
    """
    first = case.images.read(torch.tensor([0]))
    threads = suited_threads(case.module, first, case.device)
    with frozen(case.module), restored(case.module) as untouched, threads:
        traits = ModelTraits.of_module(case.module)
        surrogate = surrogates(traits) if settings.adaptation.surrogates else None
        with fitting(case.images):
            network = opened(case, batch_size, surrogate)
        stages = flatten_cascade(stages, settings.norm, targeted=settings.targeted)
        yield _CellRun(case, network, untouched, stages, settings)


@dataclass
class _CellRun:
    """A case that is ready to be attacked. stages: of the cascade, one by one."""

    case: Case
    network: Network
    untouched: Untouched
    stages: list[AttackStage]
    settings: CellConfig

    def attack(
        self, progress: Progress, store: AdversarialStore | None, choice: PrecisionChoice | None
    ) -> tuple[Part, PrecisionChoice | None]:
        """Attack all examples of the case; also give what the search computed with.

        The part has `clean_prediction`, `under_attack`, and, under audit, `contradicts` of each
        example, and the columns of `Outcomes` of each that was under attack.
        """
        network, settings = self.network, self.settings
        every = torch.arange(len(self.case.images))
        with fitting(self.case.images):  # it breaks down over them at once
            predicted = predictions(network, self.case.images, every, self.case.indices)
        moving = self.untouched.changed()  # no attack has been at work yet
        size = network.batch_size
        case = self.aimed
        _refuse_masked(network, case, predicted)
        check_stages(self.stages, settings.norm, targeted=settings.targeted)
        with self.untouched.left_alone(but=moving):
            prepared, report = prepare(self.stages, case.attackers, network, settings.seed)
        goals = case.labels if case.targets is None else case.targets
        eligible = predicted == case.labels
        if settings.targeted:
            eligible &= (goals != predicted) & (goals != NO_TARGET)
        rows = eligible.nonzero().flatten()
        audit = _audit(case, predicted, settings, network)
        keep = _Keep(rows.tolist(), store, audit) if store or audit else None
        inputs = AttackInputs(
            network,
            SelectedImages(case.images, rows),
            goals[rows],
            case.indices[rows],
            settings,
            size,
            progress,
            check_every=CHECK_EVERY if case.device.type == "cuda" else 1,
        )
        if not network.traits.ordinary or not follows_gradients(self.stages, settings):
            choice = None
        elif choice is None:
            sample = case.images.read(rows[:size])
            choice = choose(case.module, sample, len(rows), case.device, size, settings.precision)
        fast = None if choice is None else choice.open(case.device, size)
        with self.untouched.left_alone(but=moving):
            outcomes = CascadeRunner(inputs, fast, keep).run(prepared)
        values = {"clean_prediction": predicted.numpy(), "under_attack": eligible.numpy()}
        if audit is not None:
            audit.flush()
            values["contradicts"] = audit.contradicts
        return Part(values | outcomes.arrays(), report), choice

    @cached_property
    def aimed(self) -> Case:
        """The case, with a target for each example where the settings name a rule.

        Raises: BadData for labels and targets that do not fit the network; BadParameter.
        """
        case, network, settings = self.case, self.network, self.settings
        check_classes(case, network.n_classes)
        if settings.targets is None:
            return case
        return replace(case, targets=_targets(settings.targets, case, settings, network))

    def conclude(
        self, part: Part, choice: PrecisionChoice | None, store: AdversarialStore | None
    ) -> CellResult:
        """Look at what attacks showed of all examples: its flags, its records."""
        network, settings = self.network, self.settings
        if network.n_classes == 0:  # nobody has asked it yet
            prediction(network, self.case.images.read(torch.tensor([0])), self.case.indices[:1])
        case = self.aimed
        values = dict(part.values)
        predicted = torch.from_numpy(values.pop("clean_prediction"))
        eligible = values.pop("under_attack")
        contradicts = values.pop("contradicts", None)
        rows = torch.from_numpy(eligible).nonzero().flatten()
        outcomes = Outcomes.of(values)
        if not network.traits.ordinary or not follows_gradients(self.stages, settings):
            choice = None
        accesses = [stage.attack.access for stage in self.stages]
        not_reproduced, cut_short = (
            int(outcomes.not_reproduced.sum()),
            int(outcomes.cut_short.sum()),
        )
        flags = raised("no-progress", count=outcomes.idle) + sanity_flags(
            network,
            case.images,
            case.labels,
            rows,
            {*accesses},
            not_reproduced,
            cut_short,
            case.indices,
        )
        right = (predicted == case.labels).nonzero().flatten()  # whichever classes are aimed at
        flags += flags_of_model(
            network,
            SelectedImages(case.images, right),
            case.labels[right],
            case.indices[right],
            settings.adaptation,
            gradients="white-box" in accesses,
            known=case.checked,
        )
        columns = outcomes.spread(rows.numpy(), len(case.images))
        if network.rejects:
            margins = rejection_margins(network, case.images, case.indices)
            columns["rejection_margin"] = margins.double().numpy()
        if contradicts is not None:
            columns["contradicts"] = contradicts
            flags += raised(CONTRADICTED, count=int(contradicts.sum()))
        beaten = black_box.beaten_within(outcomes.stage, accesses)
        flags += raised(black_box.FLAG, count=beaten, of=len(case.images))
        return CellResult(
            records_of(case, settings, predicted.numpy(), eligible, columns),
            settings.grid,
            flags,
            part.report,
            tuple(called(one.attack) for one in self.stages),
            choice,
            case.images,
            store if isinstance(store, InMemoryStore) else None,
            settings.query_budget,
            model_dtype=named_dtype(network.dtype),
        )


@dataclass(frozen=True)
class _Keep:
    """Hands what held on, under its row of the case. rows: of the examples under attack."""

    rows: Sequence[int]
    store: AdversarialStore | None
    audit: Audit | None

    def __call__(self, owner: int, point: int, x_adv: Tensor, distance: float) -> None:
        if self.store is not None:
            self.store.keep(self.rows[owner], point, x_adv, distance)
        if self.audit is not None:
            self.audit.add(self.rows[owner], x_adv)


def _audit(case: Case, predicted: Tensor, settings: CellConfig, network: Network) -> Audit | None:
    """Begin an audit, if there are certificates, with the clean images that are misclassified.

    These lie within every radius, at distance 0.
    """
    if case.certificates is None:
        return None
    assert isinstance(case.module, Certifier)
    audit = Audit(
        case.module,
        case.certificates,
        case.images,
        case.labels,
        case.indices,
        settings.seed,
        case.device,
        network.batch_size,
    )
    for row in (predicted != case.labels).nonzero().flatten().tolist():
        audit.add(row, case.images.read(torch.tensor([row]))[0].cpu())
    return audit


def _targets(rule: Targets, case: Case, settings: CellConfig, network: Network) -> Tensor:
    """(N,): the class to reach on each example, by rule. Raises: BadParameter."""
    return choose_targets(
        rule,
        case.labels,
        network.n_classes,
        settings.seed,
        case.indices,
        lambda: clean_logits(network, case.images, case.indices),
    )


def _refuse_masked(network: Network, case: Case, predicted: Tensor) -> None:
    """Refuse a model that masks a class, by a logit of -inf, which it is to give an image.

    Only what is not given the class in question may be masked there. Raises: CellError.
    """
    for name, classes in (("label", case.labels), ("target", case.targets)):
        if classes is None or network.stochastic:  # whose votes are no logits
            continue
        rows = ((predicted != classes) & (classes != NO_TARGET)).nonzero().flatten()
        for part in rows.split(network.batch_size):
            logits = network.logits(case.images.read(part)).cpu()
            masked = logits.gather(1, classes[part, None])[:, 0] == -torch.inf
            if masked.any():
                row = int(part[masked][0])
                raise CellError(
                    f"the model's logit of class {int(classes[row])} is -inf at index "
                    f"{int(case.indices[row])}, and it is the {name} there: only classes that no "
                    "example has may be masked"
                )
