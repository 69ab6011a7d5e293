"""Interval bound propagation: training on bounds of the logits, and certificates in Linf."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bench.api.defense import Certificates, Trained, Training
from ...bench.api.errors import BadParameter
from ...bench.api.rng import Draws
from ...bench.api.threat import Norm
from ..training.loop.adversarial_config import radius
from ..training.loop.inner_attack import Adversary
from ..training.loop.loop import train
from ..training.loop.objective import Batch, History, Objective, classification, hard
from ..training.loop.training_config import Recipe, at_least, require
from .propagation import around, margins, propagate, surely_around

_HALVINGS = 24  # of the radii from 0 to 1: they are found to within 6e-8


class IntervalBounded(nn.Module):
    """A network with certificates by interval bound propagation (arXiv:1810.12715).

    network: of layers that `propagate` has rules for. Its answers are left as they are.
    """

    certifies: Norm = "Linf"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, K)."""
        logits: Tensor = self.network(x)
        return logits

    @torch.no_grad()
    def certify(self, x: Tensor, draws: Draws, batch_size: int) -> Certificates:
        """Find the largest radius, by halving, in which the bounds leave one class only.

        It holds for what the network computes in float32: bounds are in float64, rounded outwards,
        and wide enough for the network's own rounding (`Interval`).

        Raises: BadParameter, naming the layer, for one without a rule.
        """
        parts = [self._certify(part) for part in x.split(batch_size)]
        return Certificates(
            torch.cat([one.prediction for one in parts]), torch.cat([one.radius for one in parts])
        )

    @torch.no_grad()
    def predict(self, x: Tensor, draws: Draws, batch_size: int) -> Tensor:
        """(N,) int64: the network's own answers."""
        return torch.cat([self.network(part).argmax(1).cpu() for part in x.split(batch_size)])

    def _certify(self, x: Tensor) -> Certificates:
        y = self.network(x).argmax(dim=1)
        certified = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        open_ = torch.ones_like(certified)
        for number in range(_HALVINGS + 1):
            tried = open_ if not number else (certified + open_) / 2
            proved = self._certified(x, y, tried)
            certified = torch.where(proved, tried, certified)
            open_ = torch.where(proved, open_, tried)
        return Certificates(y.cpu(), certified.cpu())

    def _certified(self, x: Tensor, y: Tensor, epsilon: Tensor) -> Tensor:
        """(B,) bool: the class is y at every point within epsilon (B,)."""
        margin = margins(propagate(self.network, surely_around(x, epsilon)), y)
        others = margin.scatter(1, y[:, None], torch.inf)
        return (others > 0).all(dim=1)


@dataclass(frozen=True, kw_only=True)
class IntervalBounds(Recipe):
    """Interval bound propagation (arXiv:1810.12715): trained on bounds, certified by them in Linf.

    The loss is kappa times the cross-entropy at the images plus 1 - kappa times that of the worst
    logits that the bounds leave in a box around them. After `warmup_epochs` on the images alone
    the box grows to its full size, and kappa falls from 1, in a straight line over `ramp_epochs`.

    epsilon: of certificates to train for, by default the one that `Training` names. "8/255" works.
    margin: the box trained on is so many times larger; 1.1 is the paper's on CIFAR-10.
    kappa: what it falls to; the paper's is 0.5.

    Deviations from the paper: stochastic gradient descent, clipped, instead of Adam; the weights
    of the epoch are kept that withstand PGD best among those at full strength, not the last; bounds
    are of the network in evaluation mode, so that batch normalisation, which the paper does not
    use, goes by its running statistics there.

    Raises: BadParameter for a value that cannot be used.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example, training_example
    >>> from quintain.defenses.certified.interval_bounds import IntervalBounds
    >>> _, images, labels = linear_example()
    >>> model, training = training_example(epsilon=0.03)
    >>> defense = IntervalBounds(epochs=20, warmup_epochs=1, ramp_epochs=5, augmentation="none")
    >>> trained = defense.fit(model, training)
    >>> result = evaluate(trained.model, images, labels, epsilons=[0.025, 0.055])
    >>> result.certified_accuracy["robust_accuracy"].tolist()
    [0.8, 0.5]
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    certifies: ClassVar[Norm] = "Linf"

    epochs: int = 60
    learning_rate: float = 0.1
    weight_decay: float = 0.0
    gradient_clip: float | None = 1.0
    epsilon: float | str | None = None
    margin: float = 1.1
    kappa: float = 0.5
    warmup_epochs: int = 5
    ramp_epochs: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon is not None:
            radius(self.epsilon, "Linf", method="interval-bounds")
        require("margin", self.margin, 1.0 <= self.margin < 10.0, "at least 1 and below 10")
        require("kappa", self.kappa, 0.0 <= self.kappa <= 1.0, "between 0 and 1")
        at_least("warmup_epochs", self.warmup_epochs, 0)
        at_least("ramp_epochs", self.ramp_epochs, 0)
        whole = self.warmup_epochs + self.ramp_epochs
        if whole >= self.epochs:
            raise BadParameter(
                f"warmup_epochs + ramp_epochs = {whole} must be below epochs = {self.epochs}"
            )

    def check(self, training: Training) -> None:
        """Refuse to train without an epsilon. Raises: BadParameter."""
        self._epsilon(training)

    def _epsilon(self, training: Training) -> float:
        written = training.epsilon if self.epsilon is None else self.epsilon
        return radius(written, "Linf", method="interval-bounds")

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train the model in place; return it with its certificates.

        Raises: BadParameter without an epsilon, in a norm other than Linf, or for a layer without a
        rule; CellError when training diverges.
        """
        epsilon = self._epsilon(training)
        method = _Bounded(
            epsilon=epsilon,
            box=self.margin * epsilon,
            kappa=self.kappa,
            rising=self.warmup_epochs,
            risen=self.warmup_epochs + self.ramp_epochs,
            label_smoothing=self.label_smoothing,
            examiner=Adversary("Linf", epsilon, steps=10, step_size=0.25),
        )
        trained = train(model, training, self, method)
        return replace(trained, model=self.wrap(trained.model))

    def wrap(self, model: nn.Module) -> nn.Module:
        """Give a network its certificates."""
        return IntervalBounded(model)


@dataclass(frozen=True)
class _Bounded:
    """Train on the images and on the bounds around them; validate on what PGD finds."""

    epsilon: float
    box: float
    kappa: float
    rising: int
    risen: int
    label_smoothing: float
    examiner: Adversary

    @property
    def warmup_epochs(self) -> int:
        return self.risen

    def objective(self, model: nn.Module, batch: Batch) -> Objective:
        plain = classification(model, batch.x, batch.y, label_smoothing=self.label_smoothing)
        ramp = self._ramp(batch.epoch)
        if not ramp:
            return plain
        kappa = 1.0 - (1.0 - self.kappa) * ramp
        worst = self._worst(model, batch, ramp * self.box)
        loss = kappa * plain.loss + (1.0 - kappa) * F.cross_entropy(worst, hard(batch.y))
        return Objective(loss, plain.logits)

    def adversarial(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return {"robust": self.examiner.perturb(model, batch)}

    def alarm(self, history: History) -> str | None:
        return None

    def _ramp(self, epoch: float) -> float:
        """From 0 at the end of the warm-up to 1."""
        if epoch < self.rising:
            return 0.0
        if epoch >= self.risen:
            return 1.0
        return (epoch - self.rising) / (self.risen - self.rising)

    def _worst(self, model: nn.Module, batch: Batch, epsilon: float) -> Tensor:
        """(B, K): upper bounds of how far each logit may lead over the label's."""
        y = hard(batch.y)
        wide = torch.full((len(y),), epsilon, device=batch.x.device)
        with _evaluating(model), torch.autocast(batch.x.device.type, enabled=False):
            return -margins(propagate(model, around(batch.x, wide)), y)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode for the while; its weights learn on."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
