"""Models that reject what a detector takes for adversarial: the module, its threshold, its fit."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..bench.errors import BadData, BadParameter
from ..bench.protocols import Defense, Trained, Training
from .adversary import as_used
from .base import trained_base
from .examples import Examples
from .method import hard
from .recipe import require
from .training import parts

_ROWS = 256  # images a pass


class Rejecting(nn.Module):
    """A classifier and a detector as one module with one logit more, the rejection's.

    detector: called with the network and images (N, C, H, W), it returns the network's logits
    (N, K) and scores (N,), large for what it takes for adversarial.

    The rejection's logit is the largest class's plus asinh((score - threshold) / spread): above it
    exactly where the score is above the threshold, and differentiable wherever the score is. So an
    attack on these logits is one on classifier and detector together, as in Carlini & Wagner 2017
    (arXiv:1705.07263, section 3), who multiply the largest logit by 1 + score instead: that needs
    positive logits and a threshold of zero. The spread, the standard deviation of clean scores,
    brings detectors to one scale, and asinh keeps the logit of a score a thousand spreads away
    near those of the classes, where losses such as cross-entropy still have a gradient.
    """

    rejects = True

    threshold: Tensor
    spread: Tensor

    def __init__(self, network: nn.Module, detector: nn.Module, false_positive_rate: float) -> None:
        super().__init__()
        self.network = network
        self.detector = detector
        self.false_positive_rate = false_positive_rate
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K + 1)."""
        logits, scores = self.detector(self.network, x)
        top = logits.amax(dim=1)
        rejection = top + torch.asinh((scores - self.threshold) / self.spread)
        # Where rounding has eaten the difference, the next number up or down makes the verdict.
        end = torch.full_like(top, torch.inf)
        above, below = (torch.nextafter(top.detach(), one) for one in (end, -end))
        higher = rejection + (above - rejection.detach()).clamp(min=0.0)
        lower = rejection + (below - rejection.detach()).clamp(max=0.0)
        rejection = torch.where(scores > self.threshold, higher, lower)
        return torch.cat([logits, rejection[:, None]], dim=1)

    def calibrate(self, examples: Examples) -> None:
        """Set the threshold so that at most the wanted share of these clean images is rejected.

        Raises: BadData when they are too few for such a share.
        """
        needed = math.ceil(1.0 / self.false_positive_rate)
        if len(examples) < needed:
            raise BadData(
                f"false_positive_rate = {self.false_positive_rate:g} takes {needed} held-out "
                f"images at least to set the threshold on, and there are {len(examples)}"
            )
        scores = torch.cat([self.detector(self.network, x)[1] for x, _ in batches(examples)])
        self.threshold = torch.quantile(
            scores, 1.0 - self.false_positive_rate, interpolation="higher"
        )
        self.spread = scores.std().clamp(min=1e-12)


def fitted(
    base: Defense,
    model: nn.Module,
    training: Training,
    false_positive_rate: float,
    fit: Callable[[nn.Module, Examples], nn.Module],
) -> Trained:
    """Train what `base` makes of the model, fit a detector to it, and set its threshold.

    fit: makes the detector from the network and the examples that it was trained on. The threshold
    is set on those that it was not, the part that `base` held out for validation.

    Raises: BadParameter when the base holds out nothing, or may reject itself; BadData; CellError.
    """
    share = _validation_share(base)
    trained = trained_base(base, model, training)
    if getattr(trained.model, "rejects", False):
        raise BadParameter("the base of a detector must not reject by itself")
    split = parts(training, share)
    assert split.held_out is not None
    with torch.random.fork_rng(devices=[]), as_used(trained.model), torch.no_grad():
        torch.default_generator.manual_seed(training.seed)  # a stochastic network's
        detector = fit(trained.model, split.examples)
        module = Rejecting(trained.model, detector, false_positive_rate).to(training.device)
        module.calibrate(split.held_out)
    return replace(trained, model=module.eval())


def batches(examples: Examples) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (n, C, H, W) and classes (n,) of all examples, some at a time, on the device."""
    for rows in torch.arange(len(examples), device=examples.home).split(_ROWS):
        x, y = examples.read(rows)
        yield x, hard(y)


def check_rate(false_positive_rate: float) -> None:
    """Refuse a share that is none. Raises: BadParameter."""
    require(
        "false_positive_rate", false_positive_rate, 0.0 < false_positive_rate < 1.0, "in (0, 1)"
    )


def _validation_share(base: Defense) -> float:
    """The share that a defense by training holds out, or the one within that it wraps."""
    inner: object = base
    while not hasattr(inner, "validation_share") and hasattr(inner, "base"):
        inner = inner.base
    share = float(getattr(inner, "validation_share", 0.0))
    if not share:
        raise BadParameter(
            "a detector's threshold is set on what its base holds out for validation: the base "
            "needs a validation_share above 0"
        )
    return share
