"""One cell: attacks on one model over one grid of epsilons, judged, verified, as records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from .datasets.checks import check_images, check_labels
from .doubts import doubts, predictions
from .engine import Engine, Found, Member, Settings
from .errors import BadData, BadParameter
from .network import Network, automatic_batch_size, frozen
from .preparation import Attackers, prepare
from .protocols import Progress
from .tables import curve_of
from .threat import Epsilon, Norm
from .verify import verify


@dataclass(frozen=True)
class Case:
    """What is attacked, and with what.

    images: (N, C, H, W) in [0, 1]. labels: (N,). indices: (N,) int64, what each example is called
    and its randomness hangs on. targets: (N,) classes to reach, or None.
    attackers: what attacks that prepare themselves may use.
    """

    module: nn.Module
    device: torch.device
    images: Tensor
    labels: Tensor
    indices: Tensor
    targets: Tensor | None = None
    attackers: Attackers = Attackers()


@dataclass(frozen=True)
class Result:
    """What the attacks showed.

    records: one row for each example. flags: what makes the numbers doubtful. report: figures of
    the attacks' preparation, such as a proxy's fidelity.
    """

    records: pd.DataFrame
    grid: tuple[Epsilon, ...]
    flags: tuple[str, ...]
    report: Mapping[str, float]
    _images: Tensor
    _found: Mapping[int, Found]

    @property
    def curve(self) -> pd.DataFrame:
        """One row for each epsilon: accuracies with their intervals, and what they cost."""
        return curve_of(self.records, [one.text for one in self.grid])

    def found(self) -> dict[str, Tensor]:
        """Every adversarial example once: x_adv (n, C, H, W), its row (n,), its grid point (n,)."""
        places = [(row, point) for row, one in self._found.items() for point in one.images]
        images = [self._found[row].images[point] for row, point in places]
        return {
            "x_adv": torch.stack(images) if images else self._images[:0],
            "row": torch.tensor([row for row, _ in places], dtype=torch.int64),
            "point": torch.tensor([point for _, point in places], dtype=torch.int64),
        }

    def adversarials(self, epsilon: str | float) -> Tensor:
        """(N, C, H, W): the adversarial examples at an epsilon of the grid, clean where none is.

        Raises: BadParameter when the epsilon is not on the grid.
        """
        try:
            wanted = Epsilon.parse(epsilon)
        except ValueError as error:
            raise BadParameter(str(error)) from None
        point = next(
            (i for i, e in enumerate(self.grid) if wanted in (e, Epsilon(wanted.text, e.value))),
            None,
        )
        if point is None:
            known = ", ".join(one.text for one in self.grid)
            raise BadParameter(f"epsilon {wanted.text} is not on the grid: {known}")
        images = self._images.clone()
        for row, found in self._found.items():
            if point in found.broken:
                images[row] = found.images[max(i for i in found.images if i <= point)]
        return images


def assess(
    case: Case,
    members: Sequence[Member],
    settings: Settings,
    progress: Progress,
    batch_size: int | None = None,
) -> Result:
    """Attack, verify, and record every example.

    Raises: BadData for images or labels that cannot be used; CellError when the model or an attack
    misbehaves; BadParameter.
    """
    check_images(case.images)
    with frozen(case.module):
        network, predicted = _first_look(case, batch_size)
        size = network.batch_size
        _check_classes(case, network.n_classes)
        check_members(members, settings.norm, targeted=settings.targeted)
        prepared, report = prepare(members, case.attackers, network, settings.seed)
        goals = case.labels if case.targets is None else case.targets
        eligible = (
            (predicted == case.labels) & (predicted != goals)
            if settings.targeted
            else (predicted == case.labels)
        )
        rows = eligible.nonzero().flatten()
        engine = Engine(
            network, case.images[rows], goals[rows], case.indices[rows], settings, size, progress
        )
        found = dict(zip(rows.tolist(), engine.run(prepared), strict=True))
        refuted = _verify(network, case.images, goals, found, settings)
        cut_short = sum(one.cut_short for one in found.values())
        access = {member.attack.access for member in members}
        flags = doubts(network, case.images, case.labels, rows, access, len(refuted), cut_short)
    records = _records(case, predicted, found, refuted, settings)
    return Result(records, settings.grid, flags, report, case.images, found)


def _first_look(case: Case, batch_size: int | None) -> tuple[Network, Tensor]:
    """Make the network ready and let it predict the clean images.

    Raises: BadData when the module breaks down over them; CellError.
    """
    try:
        size = batch_size or automatic_batch_size(
            case.module, case.images[:1].to(case.device), case.device
        )
        network = Network(case.module, case.device, size)
        return network, predictions(network, case.images)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        shape = tuple(case.images.shape[1:])
        raise BadData(f"the model cannot take images of shape {shape}: {reason}") from error


def _check_classes(case: Case, n_classes: int) -> None:
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
    for member in members:
        kind = type(member.attack).__name__
        norms = getattr(member.attack, "norms", None)
        if norms is not None and norm not in norms:
            raise BadParameter(f"{kind} works in {', '.join(norms)}, not in {norm}")
        if targeted and not getattr(member.attack, "targetable", True):
            raise BadParameter(f"{kind} cannot aim at target classes")


def _verify(
    network: Network,
    images: Tensor,
    goals: Tensor,
    found: Mapping[int, Found],
    settings: Settings,
) -> set[int]:
    """Ask again about every adversarial example; drop those that fail and name their rows."""
    claims = [(row, point) for row, one in found.items() for point in one.images]
    if not claims:
        return set()
    rows = torch.tensor([row for row, _ in claims])
    holds = verify(
        network,
        images[rows],
        torch.stack([found[row].images[point] for row, point in claims]),
        goals[rows],
        torch.tensor([settings.radii[point] for _, point in claims], dtype=torch.float64),
        settings.norm,
        targeted=settings.targeted,
    )
    refuted = set()
    for (row, point), held in zip(claims, holds.tolist(), strict=True):
        if not held:
            refuted.add(row)
            del found[row].images[point]
            found[row].broken &= set(found[row].images)
            found[row].distance = float("inf")
    return refuted


def _records(
    case: Case,
    predicted: Tensor,
    found: Mapping[int, Found],
    refuted: set[int],
    settings: Settings,
) -> pd.DataFrame:
    points = range(len(settings.grid))
    rows = []
    for row in range(len(case.images)):
        one = found.get(row, Found())
        smallest = min(one.broken, default=None)
        rows.append(
            {
                "index": int(case.indices[row]),
                "label": int(case.labels[row]),
                "target": -1 if case.targets is None else int(case.targets[row]),
                "clean_prediction": int(predicted[row]),
                "under_attack": row in found,
                "smallest_epsilon": "" if smallest is None else settings.grid[smallest].text,
                "distance": one.distance if one.broken else float("nan"),
                "broken": [point in one.broken for point in points],
                "attacked": [point in one.attacked for point in points],
                "forward": one.forward,
                "backward": one.backward,
                "queries": one.queries,
                "refuted": row in refuted,
            }
        )
    return pd.DataFrame(rows)
