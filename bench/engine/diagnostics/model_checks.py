"""Whether a model's answers and gradients can be taken at their word: a few cheap checks.

An attack that follows gradients is only as good as they are, and a robust accuracy that a misled
attack leaves looks like any other. So a few dozen images, just beside those under attack, are put
to the model as it is seen by the attacks. Nothing of it counts as an attack's passes.

Source: the checklist of Carlini et al. 2019 (arXiv:1902.06705), sections 4 and 5, and Athalye et
al. 2018 (arXiv:1802.00420), section 3.1; the thresholds are our own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...api.data import Images
from ...api.flags import KINDS, Flag, raised
from ...api.rng import Draws
from ...victim.decision import Decision, decision_of
from ...victim.model import Network
from ...victim.traits import Adaptation

Checked = dict[tuple[Adaptation, bool], tuple[Flag, ...]]  # with and without gradients

_SEED = 0x5EED
_IMAGES = 24  # that are looked at
_JITTER = 1 / 255  # so far beside the images, where flat regions have no ties of maxima
_SHORT = 5e-4  # of a central difference, in each pixel: few units switch within it
_LONG = 8 / 255  # of a step that an attack would take
_EQUAL = 1e-3  # of the largest logit: what float32 rounds in another batch is a hundred times less
_FLOAT32 = torch.finfo(torch.float32).eps
_ROUNDED = 16.0  # units in the last place by which a deep network's logits are off, at most


UNREPEATABLE = "unrepeatable-logits"
BATCH = "batch-dependent-logits"
GRAD_MODE = "grad-mode-dependent-logits"
NOT_FINITE = "non-finite-gradients"
INACCURATE = "inaccurate-gradients"
MISLEADING = "misleading-gradients"
PROBABILITIES = "probability-outputs"
ROUNDED = "rounded-outputs"


@dataclass(frozen=True)
class Sample:
    """What a model is asked, and how attacks read its answers.

    x: (n, C, H, W) in [0, 1]. y: (n,), the labels. directions: (n, C, H, W) of signs. noise: of a
    stochastic model, the same at every question. rule: as a victim's.
    """

    x: Tensor
    y: Tensor
    directions: Tensor
    noise: Draws
    rule: Decision

    def read(self, logits: Tensor) -> Tensor:
        """(n, K): what attacks take logits for."""
        return self.rule.read(logits, self.y)


def flags_of_model(
    network: Network,
    images: Images,
    labels: Tensor,
    examples: Tensor,
    adaptation: Adaptation,
    *,
    gradients: bool,
    known: Checked,
) -> tuple[Flag, ...]:
    """The flags of a model, as attacks with this approach see it.

    images: N of those under attack, whose labels (N,) the model gets right. examples: (N,) int64,
    their numbers. gradients: whether attacks follow the model's own. known: the flags of the same
    model and images where they were asked for before; what is new is added.

    Raises: CellError when the model misbehaves outright, as under attack.
    """
    if not len(images):
        return ()
    asked = adaptation, gradients
    if asked not in known:
        rule = decision_of(network, targeted=False, detector_unaware=adaptation.detector_unaware)
        sample = take_sample(network, images, labels, examples, rule)
        known[asked] = check_model(network, sample, gradients=gradients)
    return known[asked]


def take_sample(
    network: Network, images: Images, labels: Tensor, examples: Tensor, rule: Decision
) -> Sample:
    """Choose images, evenly spread, and move each a little, as its number says."""
    rows = torch.linspace(0, len(images) - 1, min(len(images), _IMAGES)).round().long()
    named = examples[rows].to(network.device)
    draws = Draws(_SEED, named, torch.zeros_like(named), torch.zeros_like(named))
    x = images.read(rows).to(network.device)
    shape = x.shape[1:]
    x = _JITTER + (1.0 - 2.0 * _JITTER) * x + _JITTER * (draws.uniform(shape, "beside") - 0.5)
    y = labels[rows].to(network.device)
    directions = draws.signs(shape, "direction")
    return Sample(x, y, directions, draws, rule)


def check_model(network: Network, sample: Sample, *, gradients: bool) -> tuple[Flag, ...]:
    """The flags of a model. gradients: whether attacks follow its own.

    Raises: CellError when it misbehaves outright, as under attack.
    """
    logits = network.logits(sample.x, sample.noise)
    found: dict[str, Tensor] = {}
    differing = _differ(logits, _in_other_batches(network, sample), network)
    if differing.any():
        again = _differ(logits, network.logits(sample.x, sample.noise), network)
        found[UNREPEATABLE if again.any() else BATCH] = differing | again
    outputs = logits[:, : network.n_classes]
    found[PROBABILITIES] = _probabilities(outputs)
    if _unit(network) <= _FLOAT32:  # half precision rounds by itself
        found[ROUNDED] = _rounded(outputs)
    if gradients:
        found |= _of_gradients(network, sample, logits)
    if UNREPEATABLE in found:
        found.pop(GRAD_MODE, None)  # it says no more
    return flagged(found)


def flagged(found: Mapping[str, Tensor]) -> tuple[Flag, ...]:
    """The flags of which (n,) bool are true of more images than they may, with the share."""
    shares = {
        kind.name: float(found[kind.name].double().mean()) for kind in KINDS if kind.name in found
    }
    return tuple(flag for name, share in shares.items() for flag in raised(name, share=share))


def _of_gradients(network: Network, sample: Sample, logits: Tensor) -> dict[str, Tensor]:
    """What the gradients of one margin, linear in the logits, are worth."""
    rival = sample.read(logits).scatter(1, sample.y[:, None], -torch.inf).argmax(1)

    def margin(logits: Tensor) -> Tensor:
        read = sample.read(logits)
        return (read.gather(1, rival[:, None]) - read.gather(1, sample.y[:, None]))[:, 0]

    def loss(x: Tensor) -> Tensor:
        return margin(network.logits(x, sample.noise)).double()

    answer = network.gradient(sample.x, margin, noise=sample.noise)
    gradient = answer.gradient.double()
    finite = gradient.flatten(1).isfinite().all(dim=1)
    useful = finite & (gradient.flatten(1) != 0).any(dim=1)  # others have a flag of their own
    found = {GRAD_MODE: _differ(logits, answer.logits, network), NOT_FINITE: ~finite}
    step = _LONG * gradient.nan_to_num().sign().to(sample.x.dtype)
    along, against = (loss((sample.x + one).clamp(0.0, 1.0)) for one in (step, -step))
    found[MISLEADING] = useful & (along <= against)
    if network.traits.differentiable:  # surrogates' derivatives are others, and rightly so
        move = _SHORT * sample.directions
        difference = (loss(sample.x + move) - loss(sample.x - move)) / (2.0 * _SHORT)
        rounding = _ROUNDED * _unit(network) * _finite(logits).abs().amax(dim=1) / _SHORT
        found[INACCURATE] = useful & _wrong(gradient, sample.directions, difference, rounding)
    return found


def _wrong(gradient: Tensor, directions: Tensor, difference: Tensor, rounding: Tensor) -> Tensor:
    """(n,) bool: whether a derivative along a direction is clearly not the central difference.

    In random directions both are about the gradient's length; so their distance is compared with
    that, and not with a difference that happens to be small. rounding: (n,), the error of the
    difference that comes of the logits' number format.
    """
    derivative = (gradient * directions).flatten(1).sum(dim=1)
    length = torch.maximum(gradient.flatten(1).norm(dim=1), difference.abs())
    return (derivative - difference).abs() > 0.5 * length + rounding


def _in_other_batches(network: Network, sample: Sample) -> Tensor:
    """(n, K) logits, asked in two smaller batches, with other neighbours."""
    every = torch.arange(len(sample.x), device=sample.x.device)
    order = torch.cat([every[0::2], every[1::2]])
    parts = [
        network.logits(sample.x[rows], sample.noise.take(rows))
        for rows in (every[0::2], every[1::2])
        if len(rows)
    ]
    return torch.cat(parts)[order.argsort()]


def _differ(logits: Tensor, others: Tensor, network: Network) -> Tensor:
    """(n,) bool: where logits differ by more than their number format explains."""
    logits, others = _finite(logits), _finite(others)
    size = logits.abs().amax(dim=1).clamp(min=logits.abs().mean())
    return (logits - others).abs().amax(dim=1) > max(_EQUAL, _ROUNDED * _unit(network)) * size


def _unit(network: Network) -> float:
    """The unit of the coarsest number format that the network computes in, float32 at least."""
    kinds = {one.dtype for one in network.module.parameters() if one.is_floating_point()}
    return max([_FLOAT32, *(torch.finfo(kind).eps for kind in kinds)])


def _finite(logits: Tensor) -> Tensor:
    """The logits, with 0 for those of classes that a model rules out by minus infinity."""
    return logits.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _probabilities(outputs: Tensor) -> Tensor:
    """(n,) bool: where outputs are not negative and sum to 1."""
    total = outputs.double().sum(dim=1)
    sums = (total - 1.0).abs() < 1e-3
    every = (outputs >= 0.0).all(dim=1) & sums
    return every & every.all()


def _rounded(outputs: Tensor) -> Tensor:
    """(n,) bool, all or none: whether outputs share values, or keep a distance from each other.

    Of N different numbers spread over a range without a pattern, the two nearest are about
    range / N^2 apart: to be farther than c times that has a chance of exp(-c). Of those that are
    rounded no two are nearer than a unit. Columns that never change are left out.
    """
    varying = outputs[:, (outputs != outputs[:1]).any(dim=0)].double()
    values = varying.flatten().sort().values
    steps = values.diff()
    apart = steps[steps > 0]
    if not len(apart):
        return outputs.new_zeros(len(outputs), dtype=torch.bool)
    shared = len(steps) - len(apart) > 0.1 * len(steps)
    spread = values[-1] - values[0]
    patterned = bool(apart.min() * len(apart) ** 2 > 30.0 * spread)
    return outputs.new_full((len(outputs),), shared or patterned, dtype=torch.bool)
