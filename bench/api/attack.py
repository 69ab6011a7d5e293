"""What an attack is, its gradient source and its loss, and what the engine hands it.

Read this page to write an attack. Nothing here does work: plugins import these names, the engine
supplies the values.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from .data import ImageData
from .rng import Draws
from .threat import Ball

Access = Literal["white-box", "score", "decision"]


@dataclass(frozen=True)
class Answer:
    """What a white-box victim answers: gradient (B, C, H, W), loss (B,), logits (B, K)."""

    gradient: Tensor
    loss: Tensor
    logits: Tensor


class SurrogateGradient(Protocol):
    """Another way through a network, for the sake of its gradient: a frozen dataclass.

    Optional class attribute: faithful = False, whether the logits seen through it are the network's
    own. Only then do they say whether a point is adversarial.
    """

    def applied(self, module: nn.Module, setting: Tensor | None) -> AbstractContextManager[None]:
        """While within, the module computes what the surrogate gradient shows.

        setting: (N,), a number for each input, if the surrogate gradient takes one.
        """


_OLD = {"Lens": "SurrogateGradient"}  # what it was called in the last release
_OLD_ATTRIBUTES = {
    "attempts_per_restart": "tries",
    "boundary_search": "walks",
    "step_multiplier": "pace",
}


def __getattr__(name: str) -> Any:
    if name not in _OLD:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{name} is now {_OLD[name]}", DeprecationWarning, stacklevel=2)
    return globals()[_OLD[name]]


def declared(attack: Any, name: str, default: Any) -> Any:
    """What an attack declares of itself, be it by the name of the last release.

    default: where it declares nothing.
    """
    old = _OLD_ATTRIBUTES[name]
    for kind in type(attack).__mro__:
        if name in vars(kind):
            break
        if old in vars(kind):
            warnings.warn(f"{kind.__name__}.{old} is now {name}: rename it", DeprecationWarning, 2)
            return getattr(attack, old)
    return getattr(attack, name, default)


class Victim(Protocol):
    """The model under attack, as far as the attack's access level shows it.

    Every question is counted for each example. An example that has spent its query budget gets NaN
    (or label -1) and leaves after the step. Any point asked about that turns out to be adversarial
    is remembered by the engine: an attack need not report its successes.

    Where the model's gradient is not finite it is zero instead, and the example counts as attacked
    only if it is broken. Images, logits and gradients are float32, whatever the model computes in.
    A logit may be -inf, of a class that is masked. To ask about NaN fails the cell.

    rows: (N,) int64, which example of the batch each of the N inputs belongs to; without it the
    inputs are one for each example, in order.
    """

    @property
    def access(self) -> Access:
        """The access level that is enforced."""

    @property
    def n_classes(self) -> int:
        """How many classes the victim has."""

    @property
    def remaining(self) -> Tensor:
        """(B,) int64: queries that each example may still ask."""

    def gradient(
        self,
        x: Tensor,
        objective: Callable[[Tensor], Tensor],
        surrogate: SurrogateGradient | None = None,
        setting: Tensor | None = None,
    ) -> Answer:
        """Ascent direction at x of objective(logits), a loss for each example: (B, K) -> (B,).

        White-box only. One forward and one backward pass for each example.
        surrogate, setting: look at the model through a surrogate gradient, (B,) numbers set for the
        examples.
        """

    def differentiable(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N, K) logits that can be differentiated by x, where that requires a gradient.

        White-box only; one forward pass for each input, and a backward pass when pulled back. For
        other libraries' attacks, and losses over more than one gradient: `gradient` is cheaper.
        """

    def scores(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N, K) logits without gradient. White-box or score access. One query for each input."""

    def labels(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N,) predicted classes. Any access. One query for each input."""


@dataclass
class Problem:
    """What an attack is given: a batch of B examples, each at its own epsilon, step and restart.

    Nothing of it may be written into: a cell whose attack does so fails.

    x: (B, C, H, W) float32 in [0, 1], the clean images.
    y: (B,) the labels to leave, or the classes to reach when `targeted`.
    ball: the points allowed, with their projection, steepest step and random start.
    victim: the model under attack.
    draws: random numbers of this step, the same whatever the batch.
    step: (B,) steps done so far.
    start_points: (B, C, H, W), where to start instead of at x: the last iterate of an earlier
        attempt, scaled into this ball. warm: (B,) bool, where that is so; elsewhere start_points is
        x.
    """

    x: Tensor
    y: Tensor
    targeted: bool
    ball: Ball
    victim: Victim
    draws: Draws
    step: Tensor
    start_points: Tensor
    warm: Tensor

    @property
    def epsilon(self) -> Tensor:
        """(B,) float64."""
        return self.ball.epsilon

    @property
    def restart(self) -> Tensor:
        """(B,) int64: from 0 at each epsilon; what an attack of several `tries` goes by."""
        return self.draws.restart

    def initial(self, *, random_start: bool) -> Tensor:
        """(B, C, H, W): the usual start: warm if there is one, else random or the clean image."""
        cold = self.ball.random(self.draws) if random_start else self.x
        shape = (-1, *[1] * (self.x.dim() - 1))
        return torch.where(self.warm.reshape(shape), self.start_points, cold)


class State(Protocol):
    """What an attack carries from step to step: a dataclass of tensors with a leading batch axis.

    x_adv: (B, C, H, W), the iterate that the engine judges after the last step.
    """

    x_adv: Tensor


S = TypeVar("S", bound=State)


class Attack(Protocol[S]):
    """An attack: a frozen dataclass whose fields are its hyper-parameters.

    Optional class attributes that the engine reads, with their defaults:
        version = "1"           change it whenever the numbers change
        norms = all three       which norms it can attack in
        targetable = True       whether it can be targeted at a class
        monotone = True         whether failing at an epsilon means that smaller ones fail too;
                                from a single step nothing is inferred in any case
        asks_iterates = False   True when the victim has been asked about every x_adv already
        stays_in_ball = True    False when x_adv may leave the ball on its way, as the iterates of
                                minimum-norm attacks do; read by the conformance kit
        minimum_norm = False    True for one that looks for the nearest adversarial example whatever
                                the epsilon: it is run once, in the largest ball still of interest,
                                and the curve follows from the distances that it finds
        baseline = False        True for one to compare others with: the conformance kit
                                does not ask whether it does better than noise
        attempts_per_restart = 1  how many attempts make up a restart, such as one for each target
                                class
        boundary_search = True  whether its single steps, made long, go towards the boundary
        step_multiplier = steps / 4  what makes a single step long: the ball's radius is multiplied
    """

    @property
    def access(self) -> Access:
        """What the attack needs of its victim."""

    @property
    def steps(self) -> int:
        """How many steps one attempt takes."""

    def start(self, problem: Problem) -> S:
        """Begin: the state before the first step."""

    def step(self, problem: Problem, state: S) -> S:
        """One iteration: a new state. Neither argument may be changed in place."""


@runtime_checkable
class WholeAttack(Protocol):
    """An attack that cannot be cut into steps, such as another library's."""

    @property
    def access(self) -> Access:
        """What the attack needs of its victim."""

    def run(self, problem: Problem) -> Tensor:
        """(B, C, H, W): an adversarial candidate for each example."""


@dataclass(frozen=True)
class Cascade:
    """Attacks one after another, each on the examples and epsilons that those before it left."""

    attacks: "tuple[Attack[Any] | WholeAttack | Cascade | Alternatives, ...]"

    @property
    def access(self) -> Access:
        """The highest that any of them needs."""
        return _highest(self.attacks)


@dataclass(frozen=True)
class Alternatives:
    """A stage of a cascade: the first of these attacks that works in the norm at hand.

    And that can aim, where there are classes to reach. All have the same access.
    """

    attacks: "tuple[Attack[Any] | WholeAttack, ...]"

    @property
    def access(self) -> Access:
        """Theirs."""
        return _highest(self.attacks)


def _highest(attacks: "Iterable[Attack[Any] | WholeAttack | Cascade | Alternatives]") -> Access:
    levels: tuple[Access, ...] = ("decision", "score", "white-box")
    return max((one.access for one in attacks), key=levels.index)


class Loss(Protocol):
    """What an attack makes grow: a frozen dataclass, called with the logits."""

    def __call__(self, logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
        """(B, K), (B,) -> (B,): larger is closer to the attack's goal."""


class GradientSource(Protocol):
    """Where a gradient comes from: a frozen dataclass.

    Optional class attributes, read by attacks:
        monotone = True         whether an attack that fails with it at an epsilon would fail at
                                smaller ones too; not so for a proxy's, or a part of a gradient
        only_around = False     True when the victim is asked about points all around x, but not
                                about x itself: the attack then asks about its iterates
        adapts = ()             what it copes with by itself: "differentiable", models with layers
                                that are not; "stochastic", models that use random numbers. Of what
                                it does not, the harness takes care
    """

    @property
    def access(self) -> Access:
        """What it needs of the victim."""

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the gradient at x, (B, C, H, W), of the loss. May be an estimate."""


class Basis(Protocol):
    """Directions to look along, or to move along, one at a time: a frozen dataclass."""

    def count(self, problem: Problem) -> int:
        """How many directions there are."""

    def vectors(self, problem: Problem, numbers: Tensor) -> Tensor:
        """(B, n) int64, numbers below `count` -> (B, n, D) directions of L2 norm 1, D = C H W."""


class Differentiable(Protocol):
    """A network of the attacker's own, run in batches as the victim is."""

    def logits(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K), without gradient."""

    def gradient(
        self, x: Tensor, objective: Callable[[Tensor], Tensor], *, noise: Draws | None = None
    ) -> Answer:
        """Gradient at x of objective(logits), (B, K) -> (B,).

        noise: random numbers of the B examples, for a network that uses some.
        """


@dataclass(frozen=True)
class Preparation:
    """What an attack part may use once, before the first example, if it has a method `prepare`.

    `prepare(preparation)` returns the part to use in its stead. The part returned may have an
    attribute `report`, a mapping of figures (`fidelity`, ...) for the records.

    ask: the victim's answers to a batch (N, C, H, W): logits (N, K), or labels (N,) under decision
        access. Each input is counted as one set-up query.
    images: what the attacker owns, never the images that are attacked; None when there are none.
    train: the network that an architecture's spec becomes on some data, with hyper-parameters of
        the plain training; kept in the cache and taken from it.
    open: a network made ready for use.
    select: some of a dataset, by int64 indices. collect: a dataset in memory, of images
        (N, C, H, W), labels (N,) or probabilities (N, K), and the names of the classes.
    borrow: a network that the attacker was given, by its name.
    """

    ask: Callable[[Tensor, Access], Tensor]
    images: "ImageData | None"
    n_classes: int
    seed: int
    train: Callable[[Mapping[str, Any], "ImageData", Mapping[str, Any]], nn.Module]
    open: Callable[[nn.Module], Differentiable]
    select: Callable[["ImageData", Tensor], "ImageData"]
    collect: Callable[[Tensor, Tensor, tuple[str, ...]], "ImageData"]
    borrow: Callable[[str], nn.Module]
