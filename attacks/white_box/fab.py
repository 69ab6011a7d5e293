"""The fast adaptive boundary attack, untargeted and towards one class for each restart."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...bench.api.attack import Access, Preparation, Problem
from ...bench.api.threat import measure, per_example
from ..parts.hyperplane import way_to_plane
from ..parts.linearised import Plane, nearest_plane, ranked_classes
from ..parts.losses import Margin
from ..parts.parameters import at_least, share

_BEYOND = 0.05


@dataclass
class FABState:
    """x_adv: (B, C, H, W), the nearest adversarial point so far, the clean image before the first.

    iterate: (B, C, H, W). classes: (B, M), whose boundaries are looked at. distance: (B,) float64,
    of x_adv, infinite before the first. clean, above: (B,), margins at the clean image and at
    x_adv. low, below: (B,), a part of the way from the clean image to x_adv where it is known not
    to be adversarial, and the margin there.
    """

    x_adv: Tensor
    iterate: Tensor
    classes: Tensor
    distance: Tensor
    clean: Tensor
    above: Tensor
    low: Tensor
    below: Tensor


@dataclass(frozen=True)
class FAB:
    """Fast adaptive boundary attack: to the nearest linearised boundary, drawn towards the image.

    Source: Croce & Hein 2020 (arXiv:1907.02044), algorithm 1, with the parameters that AutoAttack
    gives it (arXiv:2003.01690). Each step projects the iterate and the clean image onto the nearest
    plane within [0, 1], and mixes the two, each prolonged by eta. From an adversarial point it goes
    back towards the clean image. The last steps are the final search of section 3.4: secant steps
    on the way from the clean image to the nearest adversarial point, here by the margin of
    whichever class is best, a twentieth of the rest of the way beyond the secant's zero, which
    alone lies just short of it, and in place of the last iterations rather than after them;
    examples without an adversarial point go on as before. Restarts begin at half epsilon from the
    image in a random direction, as in AutoAttack. Aimed at a class, it goes to the boundary between
    that class and the best other one.

    Checked against torchattacks, adv-lib, and known distances on small networks.

    One query to begin with, then two a step, with a backward pass for each class looked at.

    steps: iterations, the final search included. alpha_max: most weight of the clean image's
    projection. eta: how far beyond the plane to go, 1 to end on it. beta: part of the way that is
    left after going back. final_search: steps of the final search.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "fab", "steps": 20}
    >>> result = evaluate(
    ...     model, images, labels, attack, norm="L2", epsilons=[1.0], early_leaving=False
    ... )
    >>> result.records["distance"].round(2).tolist()
    [0.04, 0.08, 0.12, 0.16, 0.2, 0.24, 0.28, 0.32, 0.36, 0.4]
    """

    version: ClassVar[str] = "1"
    access: ClassVar[Access] = "white-box"
    stays_in_ball: ClassVar[bool] = False
    minimum_norm: ClassVar[bool] = True
    asks_iterates: ClassVar[bool] = True

    steps: int = 100
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    final_search: int = 3

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        at_least(0, final_search=self.final_search)
        share(alpha_max=self.alpha_max, beta=self.beta)
        at_least(1, eta=self.eta)

    def start(self, problem: Problem) -> FABState:
        """Begin at the clean image, or somewhere around it after the first restart."""
        logits = problem.victim.scores(problem.x)
        clean = Margin()(logits, problem.y, targeted=problem.targeted)
        classes, random = self._choose(problem, ranked_classes(logits, problem.y, logits.shape[1]))
        begin = torch.where(per_example(random, problem.x), _around(problem), problem.x)
        unknown = torch.full_like(problem.epsilon, torch.inf)
        low = torch.zeros_like(clean)
        return FABState(problem.x, begin, classes, unknown, clean, clean, low, clean)

    def _choose(self, problem: Problem, ranked: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M), the classes to look at, of those ranked (B, K - 1); (B,) bool, begin randomly."""
        return ranked, problem.restart > 0

    def step(self, problem: Problem, state: FABState) -> FABState:
        """Move to the plane, or search on the way to what was found; ask; go back if through."""
        plane = nearest_plane(problem, state.iterate, state.classes)
        searching = (problem.step >= self.steps - self.final_search) & state.distance.isfinite()
        part = state.below / (state.below - state.above)
        part = part + _BEYOND * (1.0 - part)
        cut = state.low + (1.0 - state.low) * part
        between = problem.x + per_example(cut, problem.x) * (state.x_adv - problem.x)
        moved = self._step_towards(problem, state.iterate, plane)
        probe = torch.where(per_example(searching, moved), between, moved).clamp(0.0, 1.0)
        logits = problem.victim.scores(probe)
        margin = Margin()(logits, problem.y, targeted=problem.targeted)
        won, back = margin > 0, problem.x + self.beta * (probe - problem.x)
        distance = measure(probe.double() - problem.x.double(), problem.ball.norm)
        nearer, failed = won & (distance < state.distance), searching & ~won
        gone = torch.where(searching, state.low / cut, 0.0)  # x_adv is now nearer
        kept = torch.where(searching, state.below, state.clean)
        return replace(
            state,
            x_adv=torch.where(per_example(nearer, probe), probe, state.x_adv),
            iterate=torch.where(per_example(won, probe), back, probe),
            distance=torch.where(nearer, distance, state.distance),
            above=torch.where(nearer, margin, state.above),
            low=torch.where(nearer, gone, torch.where(failed, cut, state.low)),
            below=torch.where(nearer, kept, torch.where(failed, margin, state.below)),
        )

    def _step_towards(self, problem: Problem, iterate: Tensor, plane: Plane) -> Tensor:
        """(B, C, H, W): the iterate's and the clean image's projections, prolonged and mixed."""
        norm, x, at = problem.ball.norm, problem.x.double(), iterate.double()
        from_clean = -plane.gap + (plane.normal.double() * (at - x)).flatten(1).sum(dim=1)
        own = way_to_plane(iterate, plane.normal, -plane.gap, norm)
        clean = way_to_plane(problem.x, plane.normal, from_clean, norm)
        lengths = [measure(way, norm).clamp(min=1e-8) for way in (own, clean)]
        alpha = per_example((lengths[0] / (lengths[0] + lengths[1])).clamp(max=self.alpha_max), x)
        mixed = (at + self.eta * own) * (1.0 - alpha) + (x + self.eta * clean) * alpha
        return mixed.clamp(0.0, 1.0).to(iterate.dtype)


@dataclass(frozen=True)
class FABT(FAB):
    """FAB towards one class for each restart, those of the largest logits at the clean image.

    Source: the targeted form of FAB in AutoAttack (arXiv:2003.01690): it scales to many classes,
    for a step takes one gradient. Any wrong class counts as a success. After a restart for each
    class, further ones go through them again from random points. When the user names a target
    class, all restarts go there, from random points after the first.

    Checked against known distances on small networks.

    targets: classes to try, fewer where the model does not have so many.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "fab-t", "steps": 20, "targets": 1}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, targets=self.targets)

    @property
    def attempts_per_restart(self) -> int:
        """A restart for each class."""
        return self.targets

    def prepare(self, preparation: Preparation) -> "FABT":
        """Aim at no more classes than there are."""
        return replace(self, targets=min(self.targets, max(1, preparation.n_classes - 1)))

    def _choose(self, problem: Problem, ranked: Tensor) -> tuple[Tensor, Tensor]:
        """The restart's class alone."""
        count = min(self.targets, ranked.shape[1])
        chosen = ranked.gather(1, (problem.restart % count)[:, None])
        return chosen, problem.restart >= (1 if problem.targeted else count)


def _around(problem: Problem) -> Tensor:
    """(B, C, H, W): points at half epsilon in a random direction, clipped to [0, 1]."""
    shape = problem.x.shape[1:]
    if problem.ball.norm == "Linf":
        direction = 2.0 * problem.draws.uniform(shape, "start") - 1.0
    else:
        direction = problem.draws.normal(shape, "start")
    scale = 0.5 * problem.epsilon / measure(direction, problem.ball.norm).clamp(min=1e-30)
    moved = problem.x + per_example(scale, direction).to(direction.dtype) * direction
    return moved.clamp(0.0, 1.0)
