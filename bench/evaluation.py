"""One cell: attacks on one model over one grid of epsilons, judged, verified, as records."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import black_box
from .adaptive import Nature, surrogates
from .aiming import choose_targets
from .audit import Audit
from .book import Book
from .certified import FLAG, certified_columns, without_attack
from .datasets.checks import check_labels
from .datasets.memory import SelectedImages
from .detection import detection_of
from .doubts import clean_logits, doubts, predictions, surpluses
from .engine import Engine, called
from .errors import BadData, BadParameter, CellError
from .flags import Flag, raised
from .gallery import Album, Gallery
from .model_checks import Checked, flags_of_model
from .network import Network, automatic_batch_size, frozen, named_dtype
from .preparation import Attackers, prepare
from .protocols import Certificates, Certifier, Images, Lens, Progress, WholeAttack
from .pursuit import Field
from .queries import query_curve, query_summary
from .report import summary
from .settings import Member, Settings, single
from .tables import curve_of
from .targets import NO_TARGET, Targets
from .threads import suited_threads
from .threat import Epsilon, Norm
from .trial import Choice, choose
from .untouched import restored

LOOK_EVERY = 4  # steps on a GPU; a look waits for the device, an idle row wastes at most 3


@dataclass(frozen=True)
class Case:
    """What is attacked, and with what.

    images: N of them, read as they are needed. labels: (N,). indices: (N,) int64, what each
    example is called and its randomness hangs on. targets: (N,) classes to reach, or None where
    the attack is untargeted, or the settings name a rule.
    attackers: what attacks that prepare themselves may use. certificates: what the module, which
    then is a Certifier, has proved of the images: finds that contradict it are counted. checked:
    flags of the module that are known from other attacks on it; new ones are added.
    """

    module: nn.Module
    device: torch.device
    images: Images
    labels: Tensor
    indices: Tensor
    targets: Tensor | None = None
    attackers: Attackers = Attackers()
    certificates: Certificates | None = None
    checked: Checked = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Result:
    """What the attacks showed.

    records: one row for each example. flags: what makes the numbers doubtful. report: figures of
    the attacks' preparation, such as a proxy's fidelity. members: the attacks, one by one, that the
    records' column `member` counts. choice: what the search computed its
    gradients with; None when it followed none. certified: the records of the module's certificates,
    None where it has none. title: what the user called the attacks. model_dtype: what the model
    computes in, its verdicts too.
    """

    records: pd.DataFrame
    grid: tuple[Epsilon, ...]
    flags: tuple[Flag, ...]
    report: Mapping[str, float]
    members: tuple[str, ...]
    choice: Choice | None
    _images: Images
    _album: Album | None
    _query_budget: int | None = None
    certified: pd.DataFrame | None = None
    title: str = ""
    model_dtype: str = "float32"

    def __repr__(self) -> str:
        """The attack, the curve and the flags, in ten lines at most."""
        return summary(self.title or " + ".join(self.members), self.curve, self.flags)

    @property
    def dtype(self) -> str:
        """What gradients were computed in: the model's own type, or that of a fast copy of it."""
        copied = self.choice is not None and self.choice.network is not None
        return self.choice.variant.dtype if self.choice and copied else self.model_dtype

    @property
    def curve(self) -> pd.DataFrame:
        """One row for each epsilon: accuracies with their intervals, and what they cost."""
        return curve_of(self.records, [one.text for one in self.grid])

    @property
    def certificates(self) -> pd.DataFrame | None:
        """One row for each example of a module that certifies: index, label, prediction, radius.

        None for other modules. prediction: -1 where it abstains. radius: in the norm of the attack.
        """
        return None if self.certified is None else certified_columns(self.certified)

    @property
    def certified_accuracy(self) -> pd.DataFrame | None:
        """One row for each epsilon: the share that is right and certified there, as `curve` has it.

        clean_accuracy counts the right predictions of the certificates. None for other modules.
        """
        if self.certified is None:
            return None
        return without_attack(curve_of(self.certified, [one.text for one in self.grid]))

    @property
    def queries(self) -> pd.DataFrame:
        """Success rate against queries at each epsilon, of black-box attacks.

        A few rows for each epsilon. White-box attacks' finds do not count as successes.
        """
        return query_curve(self.records, [one.text for one in self.grid], self._query_budget)

    @property
    def query_summary(self) -> pd.DataFrame:
        """Mean and median queries to success at each epsilon, of black-box attacks.

        Over the examples that were broken (`success_`), and over all that were attacked, the others
        counted at the budget, or without one at what was spent on them (`censored_`).
        """
        return query_summary(self.records, [one.text for one in self.grid], self._query_budget)

    @property
    def detection(self) -> pd.DataFrame:
        """One row for each epsilon, of a model that may reject: how well it tells what to reject.

        Raises: BadParameter when the model cannot reject.
        """
        if "surplus" not in self.records:
            raise BadParameter("the model does not reject: it has no attribute rejects = True")
        return detection_of(self.records, [one.text for one in self.grid])

    def adversarials(self, epsilon: str | float) -> Tensor:
        """(N, C, H, W): the adversarial examples at an epsilon of the grid, clean where none is.

        Raises: BadParameter when the epsilon is not on the grid.
        """
        try:
            wanted = Epsilon.parse(epsilon)
        except ValueError as error:
            raise BadParameter(str(error)) from None
        point = next((i for i, one in enumerate(self.grid) if one == wanted), None)
        if point is None:
            known = ", ".join(one.text for one in self.grid)
            raise BadParameter(f"epsilon {wanted.text} is not on the grid: {known}")
        if self._album is None:
            raise BadParameter("the adversarial examples were not kept")
        images = self._images.read(torch.arange(len(self._images))).clone()
        for row, found in self._album.images.items():
            below = [one for one in found if one <= point]
            if below and self.records["broken"].iloc[row][point]:
                images[row] = found[max(below)]
        return images


def assess(
    case: Case,
    members: Sequence[Member],
    settings: Settings,
    progress: Progress,
    batch_size: int | None = None,
    gallery: Gallery | None = None,
    choice: Choice | None = None,
) -> Result:
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
    return Result(
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


@contextmanager
def fitting(images: Images) -> Iterator[None]:
    """Say of a module that breaks down over images that these do not fit. Raises: BadData."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        shape = tuple(images.read(torch.tensor([0])).shape[1:])
        raise BadData(f"the model cannot take images of shape {shape}: {reason}") from error


def opened(case: Case, batch_size: int | None, lens: Lens | None = None) -> Network:
    """A case's module as a network, with a batch that fits if none is given."""
    first = case.images.read(torch.tensor([0])).to(case.device)
    size = batch_size or automatic_batch_size(case.module, first, case.device, lens)
    return Network(case.module, case.device, size, surrogates=lens)


def check_classes(case: Case, n_classes: int) -> None:
    """Refuse labels and targets that a network of so many classes cannot give, and a lone class.

    Raises: BadData.
    """
    if n_classes < 2:
        raise BadData(
            f"the model returns {n_classes} logit for each image, and needs one for each of at "
            "least 2 classes: of a single output z make torch.cat([-z, z], dim=1)"
        )
    check_labels(case.labels, n_classes, len(case.images))
    if case.labels.dim() != 1:
        raise BadData("labels to attack must be classes (N,), not probabilities")
    if case.targets is not None:
        try:
            check_labels(case.targets, n_classes, len(case.images))
        except BadData as error:
            raise BadData(f"targets: {error}") from None
        if bool((case.targets == case.labels).any()):
            at = int((case.targets == case.labels).nonzero()[0])
            raise BadData(f"target {int(case.targets[at])} at index {at} is the label itself")


def check_members(members: Sequence[Member], norm: Norm, *, targeted: bool) -> None:
    """Refuse what an attack says it cannot do.

    Raises: BadParameter.
    """
    for member in single(members, norm, targeted=targeted):
        kind = called(member.attack)
        norms = getattr(member.attack, "norms", None)
        if norms is not None and norm not in norms:
            raise BadParameter(f"{kind} works in {', '.join(norms)}, not in {norm}")
        if targeted and not getattr(member.attack, "targetable", True):
            raise BadParameter(f"{kind} cannot aim at target classes")


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
