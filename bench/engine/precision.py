"""Which faster copy of a network its attacks search on: decided once, for all of its cells."""

import torch

from ..api.shared.threads import suited_threads
from ..victim.fast_copy import Precision
from ..victim.model import frozen
from ..victim.precision_selection import PrecisionChoice, choose
from ..victim.unchanged_weights import restored
from .case import Case, opened
from .diagnostics.sanity_checks import predictions


def choose_precision(
    case: Case, precision: Precision, batch_size: int | None = None
) -> PrecisionChoice | None:
    """Try copies of a network on the examples that it gets right, as an untargeted attack does.

    None where a copy is of no use, since the network has no ordinary gradients.

    Raises: CellError when the network misbehaves; RuntimeError when it does not take the images.
    """
    first = case.images.read(torch.tensor([0]))
    threads = suited_threads(case.module, first, case.device)
    with frozen(case.module), restored(case.module), threads:
        network = opened(case, batch_size)
        if not network.traits.ordinary:
            return None
        if precision == "float32":
            return PrecisionChoice()
        every = torch.arange(len(case.images))
        right = predictions(network, case.images, every, case.indices) == case.labels
        rows = right.nonzero().flatten()
        size = network.batch_size
        sample = case.images.read(rows[:size])
        return choose(case.module, sample, len(rows), case.device, size, precision)
