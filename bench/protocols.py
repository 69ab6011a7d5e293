"""The seams: what a plugin of each kind is, and what the harness hands it.

Read this page to write a plugin. Nothing here does work: plugins import these names, the engine
and the runner supply the values.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from .flags import read_flags
from .random import Draws
from .threat import Ball, Norm

Access = Literal["white-box", "score", "decision"]
ABSTAIN = -1  # the class that a certifier answers where it will not say one


# ------------------------------------------------------------------------------------- attacks


@dataclass(frozen=True)
class Answer:
    """What a white-box victim tells: gradient (B, C, H, W), loss (B,), logits (B, K)."""

    gradient: Tensor
    loss: Tensor
    logits: Tensor


class Lens(Protocol):
    """Another way through a network, for the sake of its gradient: a frozen dataclass.

    Optional class attribute: faithful = False, whether the logits seen through it are the network's
    own. Only then do they tell whether a point is adversarial.
    """

    def applied(self, module: nn.Module, setting: Tensor | None) -> AbstractContextManager[None]:
        """While within, the module computes what the lens shows.

        setting: (N,), a number for each input, if the lens takes one.
        """


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
        """How many classes the victim tells apart."""

    @property
    def remaining(self) -> Tensor:
        """(B,) int64: queries that each example may still ask."""

    def gradient(
        self,
        x: Tensor,
        objective: Callable[[Tensor], Tensor],
        lens: Lens | None = None,
        setting: Tensor | None = None,
    ) -> Answer:
        """Ascent direction at x of objective(logits), a loss for each example: (B, K) -> (B,).

        White-box only. One forward and one backward pass for each example.
        lens, setting: look at the model through a lens, (B,) numbers set for the examples.
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
    start_points: (B, C, H, W), where to start instead of at x: the last iterate of an earlier try,
        scaled into this ball. warm: (B,) bool, where that is so; elsewhere start_points is x.
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

    Optional class attributes that the engine reads, with what holds without them:
        version = "1"           change it whenever the numbers change
        norms = all three       which norms it can attack in
        targetable = True       whether it can aim at a class
        monotone = True         whether failing at an epsilon tells that smaller ones fail too;
                                of a single step nothing is inferred in any case
        asks_iterates = False   True when the victim has been asked about every x_adv already
        stays_in_ball = True    False when x_adv may leave the ball on its way, as the iterates of
                                minimum-norm attacks do; read by the conformance kit
        minimum_norm = False    True for one that looks for the nearest adversarial point whatever
                                the epsilon: it is run once, in the largest ball still of interest,
                                and the distances that it finds are read off at every epsilon
        baseline = False        True for one that is there to be beaten: the conformance kit
                                does not ask whether it does better than noise
        tries = 1               how many restarts make it whole, such as one for each target class
        walks = True            whether its single steps, made long, lead towards the boundary
        pace = steps / 4        what makes a single step long: the ball's radius is multiplied
    """

    @property
    def access(self) -> Access:
        """What the attack needs of its victim."""

    @property
    def steps(self) -> int:
        """How many steps one try takes."""

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
        """(B, C, H, W): the gradient at x, (B, C, H, W), of the loss. May hold estimates."""


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


# -------------------------------------------------------------------------------------- models


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


# ------------------------------------------------------------------------------------ datasets


class Images(Protocol):
    """Images that are read on demand."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, indices: Tensor) -> Tensor:
        """(n,) int64 -> (n, C, H, W) float32 in [0, 1]."""

    def fingerprint(self) -> str:
        """Name the content: a hash of the bytes, or of what stands for them on disk."""


@dataclass(frozen=True)
class ImageData:
    """Labelled images. labels: (N,) int64 classes, or (N, K) float32 probabilities."""

    images: Images
    labels: Tensor
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_classes(self) -> int:
        """How many classes there are, present in the labels or not."""
        return len(self.class_names)


class Dataset(Protocol):
    """A dataset plugin: a frozen dataclass whose fields say where and how to read it."""

    def load(self, split: Literal["train", "test"]) -> ImageData:
        """Read one split. Raises BadData when it is not there or cannot be read."""


# ------------------------------------------------------------------------------------ defenses


@dataclass(frozen=True)
class Training:
    """What a defense trains with. It holds out a part of `data` for validation itself.

    norm, epsilon: the threat to train against, for defenses that do.
    obtain: other networks on the same data, for defenses that wrap one or combine several; None
        where there is only the model at hand.
    keeper: where the state of a run is kept, so that one that is cut off goes on; None for nowhere.
    recorder: is told how each epoch went.
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
    """Keeps the state of a training run, so that one that is cut off goes on where it was.

    A defense that trains several networks in one `fit` trains them in the same order every time;
    each of its runs begins with `recall`.
    """

    def recall(self) -> Mapping[str, Any] | None:
        """The state that this run was cut off in, tensors on the CPU; None to begin anew."""

    def due(self) -> bool:
        """Whether it is time to keep the state. Cheap: it is asked after every step."""

    def keep(self, state: Mapping[str, Any], where: str) -> None:
        """Keep tensors, numbers, texts, lists and mappings. where: how far that is, for people."""


class Recorder(Protocol):
    """Is told how training goes, for people to look at."""

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
    """A module that proves how far its answers hold: what it has beside its forward pass.

    certifies: the norm that its radii are measured in. Those in other norms follow.

    x: (N, C, H, W) in [0, 1]. draws: random numbers of N examples, for certifiers that are right
    with high probability only; others leave them. The answers hang on x, the draws and the weights
    alone. batch_size: most rows of a forward pass, which must not change the answers.
    """

    certifies: Norm

    def certify(self, x: Tensor, draws: Draws, batch_size: int) -> Certificates:
        """Prove what can be proved of each example."""

    def predict(self, x: Tensor, draws: Draws, batch_size: int) -> Tensor:
        """(N,) int64: the classes that the certificates speak of, or ABSTAIN."""


# ----------------------------------------------------------------------------------- providers


class Provider(Protocol):
    """Makes plugins called `prefix:name`: another library's attacks, or its models.

    Registered as a class without arguments, by entry point under its prefix, in the group
    `quintain.providers.attacks` or `quintain.providers.models`. The first line of its docstring is
    shown by `quintain list`. Its module must not import the library: it may not be installed.

    package: the library's module. install: the command that installs it.
    """

    package: str
    install: str

    @property
    def release(self) -> str:
        """The library's version. Results are kept apart by it."""

    def names(self) -> Iterable[str]:
        """What there is. Only called when the package is there, as `factory` is."""

    def factory(self, name: str) -> Callable[..., Any]:
        """The plugin of a name: its keyword parameters are its hyper-parameters.

        A model's factory may have an attribute `brings_weights`, called with the hyper-parameters:
        whether the network then comes with weights, and is not to be trained.
        """


# ------------------------------------------------------------------------------------ progress


class Progress(Protocol):
    """Where work reports how far it is."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Report `done` of `total`, with a short note such as the accuracy so far."""


@dataclass
class Silent:
    """Progress that nobody watches."""

    seen: int = field(default=0)

    def update(self, done: int, total: int, note: str = "") -> None:
        """Remember how far it went; show nothing."""
        self.seen = done
