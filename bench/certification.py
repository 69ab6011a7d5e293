"""Certificates as a cell: what a network proves of each example, as records like an attack's."""

import functools
import math

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from .errors import CellError
from .evaluation import Case, Result, check_classes, fitting, opened
from .network import Network, frozen, in_memory, named_dtype
from .protocols import ABSTAIN, Certificates, Certifier, Progress
from .random import Draws
from .settings import Settings
from .threads import suited_threads
from .threat import NORMS, Norm
from .untouched import restored
from .verdicts import verdict

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
    settings: Settings,
    progress: Progress,
    batch_size: int | None = None,
) -> Result:
    """Have a module that certifies prove what it can of every example.

    The records have an attack's columns: `clean_prediction` is the certificate's (-1: it abstains),
    `broken` says where the radius ends short of the epsilon. `radius` is in the settings' norm,
    `proved_radius` in the certifier's own.

    Raises: CellError when the module does not certify, or misbehaves; BadData for images or labels
    that cannot be used.
    """
    certifier = certifier_of(case.module)
    if certifier is None:
        raise CellError(f"{type(case.module).__name__} has no certificates")
    first = case.images.read(torch.tensor([0]))
    threads = suited_threads(case.module, first, case.device)
    with frozen(case.module), restored(case.module), threads:
        with fitting(case.images):
            network = opened(case, batch_size)
            verdict(network, first, case.indices[:1])
        check_classes(case, network.n_classes)
        proved = _certificates(certifier, case, settings.seed, network, progress)
    radius = inscribed(proved.radius.numpy(), certifier.certifies, settings.norm, first.numel())
    records = _records(case, proved, radius, settings)
    dtype = named_dtype(network.dtype)
    return Result(
        records, settings.grid, (), {}, (), None, case.images, None, None, model_dtype=dtype
    )


def remembered(records: pd.DataFrame) -> Certificates:
    """The certificates that a cell's records hold."""
    return Certificates(
        torch.tensor(records["clean_prediction"].to_numpy(dtype=np.int64)),
        torch.tensor(records["proved_radius"].to_numpy(dtype=np.float64)),
    )


def _certificates(
    certifier: Certifier, case: Case, seed: int, network: Network, progress: Progress
) -> Certificates:
    """Certify some examples after the other. Raises: CellError."""
    size, parts = network.batch_size, []
    every = torch.arange(len(case.images))
    for rows in every.split(network.batch_size):
        x = case.images.read(rows).to(case.device)
        examples = case.indices[rows].to(case.device)
        none = torch.zeros_like(examples)
        draws = Draws(seed, examples, none, none)
        part, size = in_memory(functools.partial(certifier.certify, x, draws), size)
        parts.append(_checked(part, len(rows), network.n_classes))
        progress.update(int(rows[-1]) + 1, len(every), "certified")
    return Certificates(
        torch.cat([one.prediction for one in parts]), torch.cat([one.radius for one in parts])
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
    case: Case, proved: Certificates, radius: NDArray[np.float64], settings: Settings
) -> pd.DataFrame:
    """One row for each example of a case."""
    prediction, labels = proved.prediction.numpy(), case.labels.numpy()
    right = prediction == labels
    broken = right[:, None] & ~(radius[:, None] >= np.array(settings.radii))
    texts = np.array([*(one.text for one in settings.grid), ""], dtype=object)
    first = np.where(broken.any(axis=1), broken.argmax(axis=1), len(settings.grid))
    nothing = np.zeros(len(labels), dtype=np.int64)
    return pd.DataFrame(
        {
            "index": case.indices.numpy(),
            "label": labels,
            "target": -1,
            "clean_prediction": prediction,
            "under_attack": right,
            "smallest_epsilon": texts[first],
            "distance": np.nan,
            "broken": broken.tolist(),
            "attacked": np.zeros_like(broken).tolist(),
            **dict.fromkeys(("forward", "backward", "queries"), nothing),
            "radius": radius,
            "proved_radius": proved.radius.numpy(),
        }
    )
