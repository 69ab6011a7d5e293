"""The hyper-parameters of training that every defense by training shares."""

import math
from dataclasses import dataclass
from typing import get_args

from ....bench.api.errors import BadParameter, check_choice
from .amp import PrecisionName
from .augmentation import AugmentationName
from .schedules import ScheduleName


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long, on what batches and by what rule the weights move: stochastic gradient descent.

    epochs, batch_size: batches of an epoch differ in size by one example at most, so that none is
        so small that batch normalisation fails.
    learning_rate: the peak; `schedule` says what becomes of it.
    momentum, weight_decay: as AlexNet's for every parameter, biases included.
    gradient_clip: longest L2 norm of a step's whole gradient.
    schedule: "one-cycle", "cosine", "step", "plateau" or "constant".
    patience: validated epochs without a lower validation loss after which "plateau" divides by 10.
    rate_warmup: share of the epochs in which the rate of "cosine" rises from 0 in a straight line.
    milestones, divisor: the shares of the epochs after which "step" divides the rate, and by what.
    augmentation: "none", "shift", or "shift-flip" (mirrored left to right every other time).
    shift: most pixels that an image moves, up, down, left or right; by default an eighth of its
        shorter side (4 pixels for CIFAR).
    colour: spread of random changes of colour along the principal axes of the training images'
        colours, 0.1 in AlexNet's training; see `PrincipalColours`. For images of 3 channels.
    label_smoothing: the probability mass spread over all classes.
    validation_share: the part of the data held out. The weights of the epoch that does best on it
        are kept; with 0 the last epoch's are.
    validate_every: epochs from one validation to the next; the last epoch is always validated.
    early_stop: validated epochs without improvement after which training ends.
    ema: decay, at each step, of an exponential moving average of the weights, such as 0.999. The
        average is then what is validated and kept; see `Average`.
    precision: of forward and backward passes, the adversary's included: "float32", or "bfloat16"
        or, on CUDA, "float16" by autocast. Weights, their steps and predictions stay float32.
    compile: whether torch.compile makes the network's passes. Slow to begin; needs a compiler.

    Raises: BadParameter for a value that cannot be used.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    gradient_clip: float | None = None
    schedule: ScheduleName = "one-cycle"
    patience: int = 3
    rate_warmup: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    divisor: float = 10.0
    augmentation: AugmentationName = "shift"
    shift: int | None = None
    colour: float = 0.0
    label_smoothing: float = 0.0
    validation_share: float = 0.1
    validate_every: int = 1
    early_stop: int | None = None
    ema: float | None = None
    precision: PrecisionName = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "validate_every", "early_stop"):
            at_least(name, getattr(self, name), 1)
        at_least("shift", self.shift, 0)
        for name in ("learning_rate", "gradient_clip"):
            positive(name, getattr(self, name))
        for name in ("momentum", "label_smoothing", "validation_share", "rate_warmup"):
            value = getattr(self, name)
            require(name, value, 0.0 <= value < 1.0, "at least 0 and below 1")
        for name in ("weight_decay", "colour"):
            value = getattr(self, name)
            require(name, value, 0.0 <= value < math.inf, "0 or positive")
        ema = 0.5 if self.ema is None else self.ema
        require("ema", self.ema, 0.0 < ema < 1.0, "above 0 and below 1")
        check_choice("schedule", self.schedule, get_args(ScheduleName))
        check_choice("augmentation", self.augmentation, get_args(AugmentationName))
        check_choice("precision", self.precision, get_args(PrecisionName))
        self._check_schedule()

    def _check_schedule(self) -> None:
        given = self.milestones
        rising = all(a < b for a, b in zip((0.0, *given), (*given, 1.0), strict=True))
        require("milestones", given, rising and bool(given), "rising, above 0 and below 1")
        require("divisor", self.divisor, 1.0 < self.divisor < math.inf, "above 1 and finite")
        if self.rate_warmup and self.schedule != "cosine":
            raise BadParameter(
                f"rate_warmup = {self.rate_warmup:g} with schedule '{self.schedule}': "
                "only 'cosine' takes it"
            )


def require(name: str, value: object, valid: bool, expected: str) -> None:
    """Raise BadParameter unless it holds."""
    if not valid:
        raise BadParameter(f"{name} = {value!r} must be {expected}")


def at_least(name: str, value: int | None, least: int) -> None:
    """Raise BadParameter unless the value is absent or `least` or more."""
    require(name, value, value is None or value >= least, f"{least} or more")


def positive(name: str, value: float | None) -> None:
    """Raise BadParameter unless the value is absent or positive and finite."""
    require(name, value, value is None or 0.0 < value < math.inf, "positive and finite")
