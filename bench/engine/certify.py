"""Certificates as a cell, and adversarial examples held against them."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..api.data import Images
from ..api.defense import ABSTAIN, Certificates, Certifier
from ..api.epsilon import NORMS, Norm
from ..api.errors import CellError
from ..api.progress import Progress
from ..api.rng import Draws
from ..api.shared.threads import suited_threads
from ..api.threat import measure
from ..victim.model import Network, filled, frozen, in_memory, named_dtype
from ..victim.unchanged_weights import restored
from ..victim.voting import prediction
from .case import Case, CellResult, check_classes, fitting, opened
from .config import CellConfig
from .outcomes import Outcomes, Part, joined, records_of

_COSTS = ("forward", "backward", "queries")
_INVERSE = {"L1": 1.0, "L2": 0.5, "Linf": 0.0}  # 1/p


def certifier_of(module: nn.Module) -> Certifier | None:
    """The module, if it proves anything about its answers.

    Raises: CellError when it does so in a norm that there is not.
    """
    if not isinstance(module, Certifier):
        return None
    if module.certifies not in NORMS:
        raise CellError(f"certifies = {module.certifies!r} is not one of {', '.join(NORMS)}")
    return module


def inscribed(
    radius: NDArray[np.float64], norm: Norm, other: Norm, size: int
) -> NDArray[np.float64]:
    """Radius of the largest ball of another norm within a ball, in `size` dimensions.

    By Hoelder's inequality: size^(1/q - 1/p) times the radius from p to a q above it, else the
    radius: r in L2 proves r in L1 and r / sqrt(size) in Linf, r in Linf proves r in L2 and L1.
    """
    exponent = _INVERSE[other] - _INVERSE[norm]
    factor = 1.0 if exponent >= 0 else math.pow(size, exponent) * (1 - 1e-12)
    return np.asarray(radius * factor)


def certify(
    case: Case,
    settings: CellConfig,
    progress: Progress,
    batch_size: int | None = None,
    parts: Sequence[Part] = (),
) -> CellResult:
    """Have a module that certifies prove what it can of every example.

    parts: what `certify_part` gave for the examples, in their order, where that is done already.

    The records have an attack's columns: `clean_prediction` is the certificate's (-1: it abstains),
    `broken` says where the radius ends short of the epsilon. `radius` is in the settings' norm,
    `proved_radius` in the certifier's own.

    Raises: CellError when the module does not certify, or misbehaves; BadData for images or labels
    that cannot be used.
    """
    first = case.images.read(torch.tensor([0]))
    with _opened(case, batch_size) as (certifier, network):
        parts = parts or [_proved(certifier, case, settings.seed, network, progress)]
        dtype = named_dtype(network.dtype)
    proved = joined(parts).values
    radius = inscribed(proved["proved_radius"], certifier.certifies, settings.norm, first.numel())
    records = _records(case, proved, radius, settings)
    return CellResult(
        records, settings.grid, (), {}, (), None, case.images, None, None, model_dtype=dtype
    )


def certify_part(
    case: Case, settings: CellConfig, progress: Progress, batch_size: int | None = None
) -> Part:
    """Have a module prove what it can of some examples of a cell, (n,) each.

    case: of these examples alone. `certify` takes all parts and makes the records of them.

    Raises: as `certify`.
    """
    with _opened(case, batch_size) as (certifier, network):
        return _proved(certifier, case, settings.seed, network, progress)


@contextmanager
def _opened(case: Case, batch_size: int | None) -> Iterator[tuple[Certifier, Network]]:
    """A case's module, ready to certify. Raises: CellError; BadData."""
    certifier = certifier_of(case.module)
    if certifier is None:
        raise CellError(f"{type(case.module).__name__} has no certificates")
    first = case.images.read(torch.tensor([0]))
    threads = suited_threads(case.module, first, case.device)
    with frozen(case.module), restored(case.module), threads:
        with fitting(case.images):
            network = opened(case, batch_size)
            prediction(network, first, case.indices[:1])
        check_classes(case, network.n_classes)
        yield certifier, network


def remembered(records: pd.DataFrame) -> Certificates:
    """The certificates that a cell's records hold."""
    return Certificates(
        torch.tensor(records["clean_prediction"].to_numpy(dtype=np.int64)),
        torch.tensor(records["proved_radius"].to_numpy(dtype=np.float64)),
    )


def _proved(
    certifier: Certifier, case: Case, seed: int, network: Network, progress: Progress
) -> Part:
    """Certify some examples after the other. Raises: CellError."""
    size, found = network.batch_size, []
    every = torch.arange(len(case.images))
    for rows in every.split(network.batch_size):
        x = filled(case.images.read(rows).to(case.device))
        examples = filled(case.indices[rows].to(case.device))
        none = torch.zeros_like(examples)
        draws = Draws(seed, examples, none, none)
        part, size = in_memory(functools.partial(certifier.certify, x, draws), size)
        part = _checked(part, len(x), network.n_classes)
        found.append(Certificates(part.prediction[: len(rows)], part.radius[: len(rows)]))
        progress.update(int(rows[-1]) + 1, len(every), "certified")
    return Part(
        {
            "clean_prediction": torch.cat([one.prediction for one in found]).numpy(),
            "proved_radius": torch.cat([one.radius for one in found]).numpy(),
        }
    )


def _checked(found: Certificates, count: int, n_classes: int) -> Certificates:
    """What a certifier says, on the CPU. Raises: CellError for what cannot be."""
    prediction, radius = found.prediction.cpu(), found.radius.cpu().double()
    if prediction.shape != (count,) or radius.shape != (count,):
        raise CellError(
            f"certificates of {count} examples must have shape ({count},), not "
            f"{tuple(prediction.shape)} and {tuple(radius.shape)}"
        )
    if not bool(((prediction >= ABSTAIN) & (prediction < n_classes)).all()):
        raise CellError(f"certificates name a class that is not one of {n_classes}")
    if not bool((radius >= 0).all()):  # NaN neither
        raise CellError("a certified radius is negative or not a number")
    return Certificates(prediction, torch.where(prediction == ABSTAIN, 0.0, radius))


def _records(
    case: Case,
    proved: Mapping[str, NDArray[Any]],
    radius: NDArray[np.float64],
    settings: CellConfig,
) -> pd.DataFrame:
    """One row for each example of a case; what only attacks have is as if there had been none."""
    prediction = proved["clean_prediction"]
    right = prediction == case.labels.numpy()
    nothing = Outcomes(0, len(settings.grid)).spread(np.arange(0), len(right))
    costs = {name: nothing[name] for name in ("distance", "attacked", *_COSTS)}
    broken = right[:, None] & ~(radius[:, None] >= np.array(settings.radii))
    values = {"broken": broken, "radius": radius, "proved_radius": proved["proved_radius"]}
    return records_of(replace(case, targets=None), settings, prediction, right, costs | values)


_FRESH = 0xAD17  # the restart of the audit's random numbers


@dataclass
class Audit:
    """Counts the certificates that the adversarial examples of an attack contradict.

    certificates: of the N images, whose labels (N,) and numbers, indices (N,), are given. An
    adversarial example counts when it is strictly nearer to its image than the radius of a
    certificate of the right class, and `predict` gives another class there; to abstain is no
    contradiction.
    """

    certifier: Certifier
    certificates: Certificates
    images: Images
    labels: Tensor
    indices: Tensor
    seed: int
    device: torch.device
    batch_size: int
    contradicts: NDArray[np.bool_] = field(init=False)
    _waiting: list[tuple[int, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.contradicts = np.zeros(len(self.labels), dtype=bool)
        right = self.certificates.prediction == self.labels
        self._radius = torch.where(right, self.certificates.radius, 0.0)

    def add(self, row: int, x_adv: Tensor) -> None:
        """Take a verified adversarial example, (C, H, W) on the CPU."""
        if self._radius[row] > 0:
            self._waiting.append((row, x_adv))
        if len(self._waiting) >= self.batch_size:
            self.flush()

    def flush(self) -> None:
        """Ask about all adversarial examples that wait and lie within their radius."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = torch.tensor([row for row, _ in waiting])
        x_adv = torch.stack([one for _, one in waiting])
        delta = x_adv.double() - self.images.read(rows).cpu().double()
        inside = measure(delta, self.certifier.certifies) < self._radius[rows]
        rows, x_adv = rows[inside], x_adv[inside]
        if not len(rows):
            return
        examples = filled(self.indices[rows].to(self.device))
        none = torch.zeros_like(examples)
        draws = Draws(self.seed, examples, none + _FRESH, none)
        x_adv = filled(x_adv.to(self.device))
        answer, self.batch_size = in_memory(
            lambda size: self.certifier.predict(x_adv, draws, size).cpu(), self.batch_size
        )
        answer = answer[: len(rows)]
        other = (answer != ABSTAIN) & (answer != self.certificates.prediction[rows])
        self.contradicts[rows[other].numpy()] = True
