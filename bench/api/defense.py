"""What a model and a defense are, what a defense trains with, and what a certifier proves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .data import ImageData
from .epsilon import Norm
from .flags import read_flags
from .progress import Progress
from .rng import Draws

ABSTAIN = -1  # the class that a certifier answers where it will not say one


@dataclass(frozen=True)
class InputSpec:
    """What a network is built for: shape (C, H, W), classes, and each channel's mean and spread."""

    shape: tuple[int, int, int]
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class ModelFactory(Protocol):
    """A model plugin: builds a network with fresh weights from torch's global generator.

    Hyper-parameters are keyword arguments. The network takes (B, C, H, W) in [0, 1], normalises
    inside, and returns logits (B, K); in training mode it may return a tuple `(logits, *auxiliary
    logits)` together with an attribute `auxiliary_weight`. Inputs that are too small raise
    BadParameter.
    """

    def __call__(self, inputs: InputSpec) -> nn.Module:
        """Build the network."""


@dataclass(frozen=True)
class Training:
    """What a defense trains with. It holds out a part of `data` for validation itself.

    norm, epsilon: the threat to train against, for defenses that do.
    obtain: other networks on the same data, for defenses that wrap one or combine several; None
        where there is only the model at hand.
    keeper: where the state of a run is kept, so that one that is interrupted goes on; None for
    nowhere.
    recorder: gets what each epoch adds to the history.
    """

    data: ImageData
    seed: int
    device: torch.device
    progress: "Progress"
    norm: Norm = "Linf"
    epsilon: float | None = None
    obtain: "Obtain | None" = None
    keeper: "Keeper | None" = None
    recorder: "Recorder | None" = None


@dataclass(frozen=True)
class Trained:
    """A defended model and how it came to be.

    history: one mapping an epoch (loss, accuracies, learning rate). flags: what makes it doubtful,
    as sentences or as `Flag`s, which they become. epoch: whose weights these are, from 1; 0 where
    that is not known.
    """

    model: nn.Module
    history: tuple[Mapping[str, float], ...] = ()
    flags: tuple[str, ...] = ()
    epoch: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "flags", read_flags(self.flags))


class Keeper(Protocol):
    """Keeps the state of a training run, so that one that is interrupted goes on where it was.

    A defense that trains several networks in one `fit` trains them in the same order every time;
    each of its runs begins with `recall`.
    """

    def recall(self) -> Mapping[str, Any] | None:
        """The state that this run was interrupted in, tensors on the CPU; None to restart."""

    def due(self) -> bool:
        """Whether it is time to keep the state. Cheap: it is asked after every step."""

    def keep(self, state: Mapping[str, Any], where: str) -> None:
        """Keep tensors, numbers, texts, lists and mappings. where: how far that is, for people."""


class Recorder(Protocol):
    """Records how training goes, for people to look at."""

    def record(self, row: Mapping[str, float]) -> None:
        """Take the row that an epoch adds to the history. A run that goes on may repeat one."""


class Obtain(Protocol):
    """Trains another network on the same data and threat, or takes it from the cache."""

    def __call__(
        self, defense: "Defense", *, seed: int | None = None, model: Mapping[str, Any] | None = None
    ) -> Trained:
        """Return the network that `defense` makes of `model`.

        seed: of its first weights and its training, by default the same. model: its spec, by
        default the same architecture.

        Raises: CellError when training diverges; BadParameter and UnknownPlugin.
        """


class Defense(Protocol):
    """A defense plugin: a frozen dataclass that trains or wraps a model.

    Optional attributes, those of a defense that it wraps included:
        differentiable = True   False when the model gets layers without a useful gradient
        stochastic = False      True when the model uses random numbers
    Models that are not ordinary are attacked with surrogates and means over draws, and a second
    time naively. A layer that makes a model so has the same attribute, and a method `surrogate(x)`
    where the identity is no good stand-in for it.

    A method `check(training)`, if any, is called before any work: it raises BadParameter for a
    hyper-parameter that `fit` would miss or could not use. There is no way to `obtain` there.

    If `fit` returns another module than it was given, a method `wrap(model) -> nn.Module` lets the
    cache make that module again before it fills in the weights; without one it is not cached.

    Optional class attributes:
        certifies = None        the norm of the certificates, where that module is a `Certifier`: a
                                suite then shows them beside the attacks
        rejects = False         True when that module has the attribute `rejects = True` and returns
                                logits (B, K + 1), the last for "rejected": an input is rejected
                                where that is the largest. Its attribute `false_positive_rate`, if
                                any, is the share of clean images that it is set to reject
    Buffers whose size `fit` decides are empty after `wrap`, and take that of the checkpoint's.
    """

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train the model (in place is fine) or wrap it. Raises CellError if training diverges."""


@dataclass(frozen=True)
class Certificates:
    """What is proved of N examples.

    prediction: (N,) int64, the class, or ABSTAIN. radius: (N,) float64, not negative: no image in
    [0, 1] that is nearer to the example is given another class; 0 where nothing is proved.
    """

    prediction: Tensor
    radius: Tensor


@runtime_checkable
class Certifier(Protocol):
    """A module that proves how far its predictions are right: what it has beside its forward pass.

    certifies: the norm that its radii are measured in. Those in other norms follow.

    x: (N, C, H, W) in [0, 1]. draws: random numbers of N examples, for certifiers that are right
    with high probability only; others leave them. The answers depend on x, the draws and the
    weights alone. batch_size: most rows of a forward pass, which must not change the answers.
    """

    certifies: Norm

    def certify(self, x: Tensor, draws: Draws, batch_size: int) -> Certificates:
        """Prove what can be proved of each example."""

    def predict(self, x: Tensor, draws: Draws, batch_size: int) -> Tensor:
        """(N,) int64: the classes that the certificates speak of, or ABSTAIN."""


def rejects(declared: object) -> bool:
    """Whether a module can reject an input, or that of a defense."""
    return bool(getattr(declared, "rejects", False))
