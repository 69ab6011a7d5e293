"""One cell: attacks on one model over one grid of epsilons, judged, verified, as records."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from .datasets.checks import check_images, check_labels
from .engine import Engine, Found, Member, Settings
from .errors import BadData, BadParameter
from .network import Network, automatic_batch_size, frozen
from .protocols import Access, ImageData, Preparation, Progress
from .tables import curve_of
from .threat import Epsilon, Norm
from .verify import verify

_VANISHING = 0.1  # share of examples without any gradient above which a model is flagged


@dataclass(frozen=True)
class Case:
    """What is attacked, and with what.

    images: (N, C, H, W) in [0, 1]. labels: (N,). indices: (N,) int64, what each example is called
    and its randomness hangs on. targets: (N,) classes to reach, or None.
    attacker_images: what the attacker owns, for attacks that train on it.
    train: how a network of the attacker's is trained (see protocols.Preparation).
    """

    module: nn.Module
    device: torch.device
    images: Tensor
    labels: Tensor
    indices: Tensor
    targets: Tensor | None = None
    attacker_images: ImageData | None = None
    train: Callable[[Mapping[str, Any], ImageData, Mapping[str, Any]], nn.Module] | None = None


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

    def adversarials(self, epsilon: str | float) -> Tensor:
        """(N, C, H, W): the adversarial examples at an epsilon of the grid, clean where none is.

        Raises: BadParameter when the epsilon is not on the grid.
        """
        wanted = Epsilon.parse(epsilon)
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
        size = batch_size or automatic_batch_size(
            case.module, case.images[:1].to(case.device), case.device
        )
        network = Network(case.module, case.device, size)
        predicted = _predictions(network, case.images)
        _check_classes(case, network.n_classes)
        check_members(members, settings.norm, targeted=settings.targeted)
        prepared, report = _prepare(members, case, network, settings)
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
        flags = _flags(network, case, rows, members, refuted)
    records = _records(case, predicted, found, refuted, settings)
    return Result(records, settings.grid, flags, report, case.images, found)


def _predictions(network: Network, images: Tensor) -> Tensor:
    parts = [
        network.logits(part.to(network.device)).argmax(1).cpu()
        for part in images.split(network.batch_size)
    ]
    return torch.cat(parts)


def _check_classes(case: Case, n_classes: int) -> None:
    check_labels(case.labels, n_classes, len(case.images))
    if case.labels.dim() != 1:
        raise BadData("labels to attack must be classes (N,), not probabilities")
    if case.targets is not None:
        check_labels(case.targets, n_classes, len(case.images))
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


def _prepare(
    members: Sequence[Member], case: Case, network: Network, settings: Settings
) -> tuple[list[Member], dict[str, float]]:
    """Let the attacks' parts prepare themselves; return them with their reports."""
    report = {"setup_queries": 0.0}

    def ask(x: Tensor, access: Access) -> Tensor:
        report["setup_queries"] += len(x)
        logits = network.logits(x.to(network.device)).cpu()
        return logits.argmax(1) if access == "decision" else logits

    def train(
        model: Mapping[str, Any], data: ImageData, parameters: Mapping[str, Any]
    ) -> nn.Module:
        if case.train is None:
            raise BadParameter("this attack needs a way to train networks of its own")
        return case.train(model, data, parameters)

    def open_network(module: nn.Module) -> Network:
        module.to(network.device).eval().requires_grad_(False)
        return Network(module, network.device, network.batch_size)

    preparation = Preparation(
        ask, case.attacker_images, network.n_classes, settings.seed, train, open_network
    )
    prepared = []
    for member in members:
        attack = prepare_parts(member.attack, preparation, report)
        prepared.append(replace(member, attack=attack))
    return prepared, report


def prepare_parts(part: Any, preparation: Preparation, report: dict[str, float]) -> Any:
    """Replace an attack, and each plugin among its fields, by what its `prepare` returns."""
    if is_dataclass(part) and not isinstance(part, type):
        changed = {}
        for one in fields(part):
            value = getattr(part, one.name)
            if is_dataclass(value) and not isinstance(value, type):
                changed[one.name] = prepare_parts(value, preparation, report)
        part = replace(part, **changed) if changed else part
    if hasattr(part, "prepare"):
        part = part.prepare(preparation)
        report.update(getattr(part, "report", {}))
    return part


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


def _flags(
    network: Network,
    case: Case,
    rows: Tensor,
    members: Sequence[Member],
    refuted: set[int],
) -> tuple[str, ...]:
    flags = []
    if refuted:
        flags.append(f"refuted-adversarials:{len(refuted)}")
    again = _predictions(network, case.images.flip(0)).flip(0)[rows]
    changed = int((again != case.labels[rows]).sum())
    if changed:
        flags.append(f"unstable-predictions:{changed}")
    if len(rows) and any(member.attack.access == "white-box" for member in members):
        dead = _vanishing(network, case.images[rows], case.labels[rows])
        if dead > _VANISHING:
            flags.append(f"vanishing-gradients:{dead:.0%}")
    return tuple(flags)


def _vanishing(network: Network, images: Tensor, labels: Tensor) -> float:
    """Share of examples at which the gradient of the cross-entropy is zero everywhere."""
    dead = 0
    for x, y in zip(
        images.split(network.batch_size), labels.split(network.batch_size), strict=True
    ):
        goal = y.to(network.device)
        answer = network.gradient(
            x.to(network.device),
            lambda logits, goal=goal: nn.functional.cross_entropy(logits, goal, reduction="none"),
        )
        dead += int((answer.gradient.flatten(1).abs().amax(1) == 0).sum())
    return dead / len(images)


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
