"""What attacks on labels share: where they start, and the way to the boundary from there."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...bench.api.attack import Preparation, Problem
from ...bench.api.data import ImageData
from ...bench.api.errors import BadParameter
from ...bench.api.threat import per_example


def adversarial(problem: Problem, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Ask about points (n, C, H, W) of some rows (n,): whether adversarial, whether answered."""
    labels = problem.victim.labels(points, rows)
    answered = labels >= 0
    hit = (labels == problem.y[rows]) == problem.targeted
    return hit & answered, answered


def among(problem: Problem, points: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """The same, for one point of each example where `asked`, (B,) bool, is true: (B,) and (B,)."""
    hit, answered = torch.zeros_like(asked), torch.zeros_like(asked)
    rows = torch.nonzero(asked).flatten()
    if len(rows):
        some_hit, some_answered = adversarial(problem, points[rows], rows)
        hit = hit.index_copy(0, rows, some_hit)
        answered = answered.index_copy(0, rows, some_answered)
    return hit, answered


def bisect(
    problem: Problem,
    points: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    tolerance: Tensor,
    active: Tensor,
) -> Tensor:
    """(B,) float64: where along a path the boundary is, from its adversarial side.

    points: (B,) places on the path -> (B, C, H, W). low, high: (B,) float64, places of which the
    higher is adversarial. tolerance: (B,), between the two at the end. active: (B,) bool, where to
    look; elsewhere `high` is given back.
    """
    while True:
        middle = 0.5 * (low + high)
        active = active & (high - low > tolerance) & (middle > low) & (middle < high)
        if not active.any():
            return high
        hit, answered = among(problem, points(middle), active)
        active = active & answered
        high = torch.where(active & hit, middle, high)
        low = torch.where(active & ~hit, middle, low)


def blend(x: Tensor, far: Tensor, share: Tensor) -> Tensor:
    """x + share (far - x): (B, C, H, W), share (B,); `far` itself where the share is 1."""
    share = per_example(share, x).to(x.dtype)
    return torch.where(share == 1.0, far, (x + share * (far - x)).clamp(0.0, 1.0))


@dataclass(frozen=True)
class _Owned:
    """The attacker's images, those of a class together.

    images: which can be read. order: (N,) their numbers by class. first: (K + 1,), where each class
    begins there; of one class only when the labels are not known.
    """

    images: ImageData
    order: Tensor
    first: Tensor


@dataclass(frozen=True)
class StartingPoints:
    """Adversarial points to begin with: noise, else images of the attacker's own.

    Untargeted, points uniform over [0, 1] are tried first, as Brendel et al. 2018
    (arXiv:1712.04248) and Chen et al. 2020 (arXiv:1904.02144) do; then, if the attacker has images,
    those of other classes. Towards a target, images of that class, and noise if there are none.
    Each attempt is a query of the example's. Where nothing is found the example is left alone.

    noise: tries with noise. images: tries with images.
    """

    noise: int = 50
    images: int = 50
    _owned: _Owned | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.noise < 0 or self.images < 0 or self.noise + self.images == 0:
            raise BadParameter(
                "the attempts with noise and images must not be negative, nor both 0"
            )

    def prepare(self, preparation: Preparation) -> "StartingPoints":
        """Sort the attacker's images by class. The victim is not asked."""
        owned = preparation.images
        if owned is None or not len(owned):
            return self
        labels = owned.labels.argmax(dim=1) if owned.labels.dim() == 2 else owned.labels
        if owned.n_classes != preparation.n_classes:
            labels = torch.zeros_like(labels)
        counts = torch.bincount(labels, minlength=owned.n_classes)
        first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        filled = replace(self)
        object.__setattr__(filled, "_owned", _Owned(owned, labels.argsort(stable=True), first))
        return filled

    def find(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,) bool: adversarial points, and where there are any; else x."""
        found = torch.zeros_like(problem.warm)
        points = problem.x
        owned = self._owned
        waiting = ~found
        for number in range(self.noise if owned is None or not problem.targeted else 0):
            noise = problem.draws.uniform(problem.x.shape[1:], f"noise {number}")
            points, found, waiting = _tried(problem, points, found, waiting, noise)
            if not waiting.any():
                return points, found
        for number in range(self.images if owned is not None else 0):
            assert owned is not None
            images = _drawn(problem, owned, f"image {number}")
            points, found, waiting = _tried(problem, points, found, waiting, images)
            if not waiting.any():
                break
        return points, found


def _tried(
    problem: Problem, points: Tensor, found: Tensor, waiting: Tensor, candidates: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Ask about one candidate for each example that waits: points, found, and who still waits."""
    hit, answered = among(problem, candidates, waiting)
    points = torch.where(per_example(hit, points), candidates, points)
    return points, found | hit, waiting & answered & ~hit


def _drawn(problem: Problem, owned: _Owned, stream: str) -> Tensor:
    """(B, C, H, W): for each example an image of another class, or of the target class.

    Any image at all where there is none such.
    """
    first, y = owned.first, problem.y.cpu()
    total = len(owned.order)
    known = len(first) > 2
    begin = first[y] if known else torch.zeros_like(y)
    own = first[y + 1] - begin if known else torch.zeros_like(y)
    usable = own if problem.targeted else total - own
    usable = torch.where(usable > 0, usable, 0)
    drawn = problem.draws.uniform((1,), stream)[:, 0].double().cpu()
    place = (drawn * torch.where(usable > 0, usable, total)).long()
    chosen = begin + place if problem.targeted else torch.where(place >= begin, place + own, place)
    at = torch.where(usable > 0, chosen, place)
    return owned.images.images.read(owned.order[at]).to(problem.x)
