"""One cell: attacks on one model over one grid of epsilons, judged, verified, as records."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..api.attack import WholeAttack
from ..api.defense import Certifier
from ..api.errors import CellError
from ..api.flags import raised
from ..api.progress import Progress
from ..api.shared import black_box
from ..api.shared.threads import suited_threads
from ..datasets.in_memory import SelectedImages
from ..report.certificates import FLAG
from ..victim.model import Network, frozen, named_dtype
from ..victim.precision_selection import Choice, choose
from ..victim.traits import Nature
from ..victim.unchanged_weights import restored
from .adversarials import Album, Gallery
from .cascade import Engine
from .case import Case, CellResult, check_classes, fitting, opened
from .certify import Audit
from .config import Member, Settings, called, check_members, single
from .diagnostics.model_checks import flags_of_model
from .diagnostics.sanity_checks import clean_logits, doubts, predictions, surpluses
from .loop import Field
from .outcomes import Book
from .preparation import prepare, surrogates
from .target_choice import choose_targets
from .targets import NO_TARGET, Targets

LOOK_EVERY = 4  # steps on a GPU; a look waits for the device, an idle row wastes at most 3


def assess(
    case: Case,
    members: Sequence[Member],
    settings: Settings,
    progress: Progress,
    batch_size: int | None = None,
    gallery: Gallery | None = None,
    choice: Choice | None = None,
) -> CellResult:
    """Attack, verify, and record every example.

    gallery: where adversarial examples go; only an Album can be asked for them later. choice: what
    the search computes its gradients with, where that is known already.

    Raises: BadData for images or labels that cannot be used; CellError when the model or an attack
    misbehaves; BadParameter.
    """
    first = case.images.read(torch.tensor([0]))
    threads = suited_threads(case.module, first, case.device)
    with frozen(case.module), restored(case.module) as untouched, threads:
        network, predicted = _first_look(case, settings, batch_size)
        moving = untouched.changed()  # no attack has been at work yet
        size = network.batch_size
        check_classes(case, network.n_classes)
        if settings.targets is not None:
            case = replace(case, targets=_targets(settings.targets, case, settings, network))
        _refuse_masked(network, case, predicted)
        members = single(members, settings.norm, targeted=settings.targeted)
        check_members(members, settings.norm, targeted=settings.targeted)
        with untouched.left_alone(but=moving):
            prepared, report = prepare(members, case.attackers, network, settings.seed)
        goals = case.labels if case.targets is None else case.targets
        eligible = predicted == case.labels
        if settings.targeted:
            eligible &= (goals != predicted) & (goals != NO_TARGET)
        rows = eligible.nonzero().flatten()
        audit = _audit(case, predicted, settings, network)
        keep = _Keep(rows.tolist(), gallery, audit) if gallery or audit else None
        field = Field(
            network,
            SelectedImages(case.images, rows),
            goals[rows],
            case.indices[rows],
            settings,
            size,
            progress,
            look_every=LOOK_EVERY if case.device.type == "cuda" else 1,
        )
        if not network.nature.ordinary or not _follows_gradients(members, settings):
            choice = None
        elif choice is None:
            sample = case.images.read(rows[:size])
            choice = choose(case.module, sample, len(rows), case.device, size, settings.precision)
        fast = None if choice is None else choice.open(case.device, size)
        with untouched.left_alone(but=moving):
            book = Engine(field, fast, keep).run(prepared)
        if audit is not None:
            audit.settle()
        access = {member.attack.access for member in members}
        refuted, cut_short = int(book.refuted.sum()), int(book.cut_short.sum())
        flags = raised("no-progress", count=book.idle) + doubts(
            network, case.images, case.labels, rows, access, refuted, cut_short, case.indices
        )
        flags += flags_of_model(
            network,
            SelectedImages(case.images, rows),
            case.labels[rows],
            case.indices[rows],
            settings.approach,
            gradients="white-box" in access,
            known=case.checked,
        )
        clean = surpluses(network, case.images, case.indices) if network.rejects else None
    records = _records(case, predicted, rows, book, settings, clean)
    if audit is not None:
        records["contradicts"] = audit.contradicts
        flags += raised(FLAG, count=int(audit.contradicts.sum()))
    accesses = [member.attack.access for member in members]
    beaten = black_box.beaten_within(book.member, accesses)
    flags += raised(black_box.FLAG, count=beaten, of=len(case.images))
    album = gallery if isinstance(gallery, Album) else None
    names = tuple(called(one.attack) for one in members)
    budget = settings.query_budget
    return CellResult(
        records,
        settings.grid,
        flags,
        report,
        names,
        choice,
        case.images,
        album,
        budget,
        model_dtype=named_dtype(network.dtype),
    )


def _follows_gradients(members: Sequence[Member], settings: Settings) -> bool:
    """Whether there are gradients of the victim's to compute faster; a budget is kept exactly.

    Whole attacks differentiate the victim itself.
    """
    stepping = (one.attack for one in members if not isinstance(one.attack, WholeAttack))
    white = any(attack.access == "white-box" for attack in stepping)
    return white and settings.query_budget is None


@dataclass(frozen=True)
class _Keep:
    """Hands what held on, under its row of the case. rows: of the examples under attack."""

    rows: Sequence[int]
    gallery: Gallery | None
    audit: Audit | None

    def __call__(self, owner: int, point: int, x_adv: Tensor) -> None:
        if self.gallery is not None:
            self.gallery.keep(self.rows[owner], point, x_adv)
        if self.audit is not None:
            self.audit.hear(self.rows[owner], x_adv)


def _audit(case: Case, predicted: Tensor, settings: Settings, network: Network) -> Audit | None:
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
        audit.hear(row, case.images.read(torch.tensor([row]))[0].cpu())
    return audit


def _targets(rule: Targets, case: Case, settings: Settings, network: Network) -> Tensor:
    """(N,): the class to reach on each example, by rule. Raises: BadParameter."""
    return choose_targets(
        rule,
        case.labels,
        network.n_classes,
        settings.seed,
        case.indices,
        lambda: clean_logits(network, case.images, case.indices),
    )


def _first_look(case: Case, settings: Settings, batch_size: int | None) -> tuple[Network, Tensor]:
    """Make the network ready and let it predict the clean images.

    Raises: BadData when the module breaks down over them; CellError.
    """
    lens = surrogates(Nature.of_module(case.module)) if settings.approach.surrogates else None
    with fitting(case.images):
        network = opened(case, batch_size, lens)
        every = torch.arange(len(case.images))
        return network, predictions(network, case.images, every, case.indices)


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


def _records(
    case: Case,
    predicted: Tensor,
    rows: Tensor,
    book: Book,
    settings: Settings,
    clean: Tensor | None,
) -> pd.DataFrame:
    """One row for each example of a case.

    rows: (n,), which of them are in the book. clean: (N,), how far the clean images are from being
    rejected, by a model that may do so.
    """
    count, at = len(case.images), rows.numpy()
    texts = np.array([*(one.text for one in settings.grid), ""], dtype=object)
    smallest = np.full(count, len(settings.grid))
    smallest[at] = np.where(book.broken.any(axis=1), book.broken.argmax(axis=1), len(settings.grid))

    def spread(values: NDArray[Any], missing: Any = 0) -> NDArray[Any]:
        whole = np.full((count, *values.shape[1:]), missing, dtype=values.dtype)
        whole[at] = values
        return whole

    distance = np.where(book.broken.any(axis=1), book.distance, np.nan)
    rejection = {}
    if clean is not None:
        scores = spread(book.scores, missing=np.nan).tolist()
        rejection = {"surplus": clean.double().numpy(), "candidate_surplus": scores}
    return pd.DataFrame(
        {
            "index": case.indices.numpy(),
            "label": case.labels.numpy(),
            "target": -1 if case.targets is None else case.targets.numpy(),
            "clean_prediction": predicted.numpy(),
            "under_attack": spread(np.ones(len(at), dtype=bool), missing=False),
            "smallest_epsilon": texts[smallest],
            "distance": spread(distance, missing=np.nan),
            "broken": spread(book.broken).tolist(),
            "attacked": spread(book.attacked).tolist(),
            "forward": spread(book.forward),
            "backward": spread(book.backward),
            "queries": spread(book.queries.sum(axis=1, dtype=np.int64)),
            "refuted": spread(book.refuted),
            "solved": spread(book.solved).tolist(),
            "member": spread(book.member, missing=-1).tolist(),
            **rejection,
        }
    )
