"""Models that reject what a detector takes for adversarial: the module, its threshold, its fit."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...bench.api.defense import Defense, Trained, Training
from ...bench.api.errors import BadData, BadParameter
from ..ensemble import Ensemble
from ..training.loop.inner_attack import as_used
from ..training.loop.loop import parts
from ..training.loop.objective import hard
from ..training.loop.train_data import Examples
from ..training.loop.training_config import require
from ..wrapper import Wrapper, trained_base, wrapped

_ROWS = 256  # images a pass


@dataclass(frozen=True, kw_only=True)
class Detection(Wrapper, ABC):
    """A network that rejects what a detector beside it takes for adversarial.

    false_positive_rate: of clean images; the threshold is that quantile of the scores of the part
        that the base held out for validation, and did not train on.

    Raises: BadParameter for a rate that is none, or a base that rejects by itself or does not hold
    out images.
    """

    false_positive_rate: float = 0.05

    def __post_init__(self) -> None:
        rate = self.false_positive_rate
        require("false_positive_rate", rate, 0.0 < rate < 1.0, "in (0, 1)")
        if getattr(self.base, "rejects", False):
            raise BadParameter("the base of a detector must not reject by itself")
        _validation_share(self.base)

    @property
    def rejects(self) -> bool:
        """True."""
        return True

    @abstractmethod
    def detector(self) -> nn.Module:
        """Make the detector as it is before it is fitted."""

    @abstractmethod
    def fitted(self, network: nn.Module, examples: Examples) -> nn.Module:
        """Make the detector of a network, from the examples that it was trained on."""

    def check(self, training: Training) -> None:
        """Refuse a base that holds out nothing. Raises: BadParameter; BadData."""
        super().check(training)
        _validation_share(self.base)

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train what the base makes of the model, fit the detector, and set its threshold.

        Raises: BadParameter when the base holds out nothing; BadData; CellError.
        """
        share = _validation_share(self.base)
        trained = trained_base(self.base, model, training)
        split = parts(training, share)
        assert split.held_out is not None
        with torch.random.fork_rng(devices=[]), as_used(trained.model), torch.no_grad():
            torch.default_generator.manual_seed(training.seed)  # a stochastic network's
            detector = self.fitted(trained.model, split.examples)
            module = Rejecting(trained.model, detector, self.false_positive_rate)
            module.to(training.device).calibrate(split.held_out)
        return replace(trained, model=module.eval())

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module that `fit` returns, to be filled from a checkpoint."""
        return Rejecting(wrapped(self.base, model), self.detector(), self.false_positive_rate)


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
        # Where rounding has eaten the difference, the next number up or down makes the prediction.
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


def batches(examples: Examples) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (n, C, H, W) and classes (n,) of all examples, some at a time, on the device."""
    for rows in torch.arange(len(examples), device=examples.home).split(_ROWS):
        x, y = examples.read(rows)
        yield x, hard(y)


def _validation_share(base: Defense) -> float:
    """The share that a defense by training holds out, or the one within that it wraps."""
    inner: object = base
    while not hasattr(inner, "validation_share") and hasattr(inner, "base"):
        if isinstance(inner, Ensemble):
            raise BadParameter(
                "a detector's threshold is set on images that its base was not trained on; an "
                "ensemble cannot be the base, as each of its members holds out others"
            )
        inner = inner.base
    share = float(getattr(inner, "validation_share", 0.0))
    if not share:
        raise BadParameter(
            "a detector's threshold is set on what its base holds out for validation: the base "
            "needs a validation_share above 0"
        )
    return share
