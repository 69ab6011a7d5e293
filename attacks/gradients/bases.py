"""Bases: directions to look along when there are too many pixels to look at each."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...bench.api.attack import Preparation, Problem
from ...bench.api.errors import BadParameter
from ..parts.parameters import at_least, positive_up_to

_ENOUGH = 2000  # images of the attacker's that principal components are computed from


@dataclass(frozen=True)
class Pixels:
    """One coordinate at a time.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "simba", "basis": "pixels"}
    >>> result = evaluate(
    ...     model, images, labels, attack, epsilons=[0.025, 0.055], query_budget=200
    ... )
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """

    def count(self, problem: Problem) -> int:
        """As many as there are coordinates."""
        return problem.x[0].numel()

    def vectors(self, problem: Problem, numbers: Tensor) -> Tensor:
        """(B, n) -> (B, n, D): unit vectors."""
        flat = problem.x.new_zeros(*numbers.shape, problem.x[0].numel())
        return flat.scatter(2, numbers[:, :, None], 1.0)


@dataclass(frozen=True)
class Cosines:
    """Low frequencies: two-dimensional cosine waves of one channel, those of the DCT-II.

    Source: Guo et al. 2018 (arXiv:1809.08758), section 3; Guo et al. 2019 (arXiv:1905.07121).

    share: of the frequencies along each side, the lowest; at least one.

    The model of the example looks at the highest frequency, so the lowest quarter is no use:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> for share in (0.25, 1.0):
    ...     attack = {"name": "simba", "basis": {"name": "cosines", "share": share}}
    ...     result = evaluate(model, images, labels, attack, epsilons=[0.055], query_budget=200)
    ...     share, result.curve["robust_accuracy"].tolist()
    (0.25, [1.0])
    (1.0, [0.5])
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        positive_up_to(1.0, share=self.share)

    def count(self, problem: Problem) -> int:
        """Channels times frequencies down times frequencies across."""
        channels, height, width = problem.x.shape[1:]
        return channels * self._kept(height) * self._kept(width)

    def vectors(self, problem: Problem, numbers: Tensor) -> Tensor:
        """(B, n) -> (B, n, D): orthonormal waves, the channel changing slowest."""
        channels, height, width = problem.x.shape[1:]
        down, across = self._kept(height), self._kept(width)
        waves_down, waves_across = (_waves(size, problem.x) for size in (height, width))
        within = numbers % (down * across)
        vertical, horizontal = waves_down[within // across], waves_across[within % across]
        wave = vertical[..., :, None] * horizontal[..., None, :]
        channel = numbers[..., None] // (down * across) == torch.arange(
            channels, device=numbers.device
        )
        return (channel[..., None, None] * wave[:, :, None]).flatten(2)

    def _kept(self, size: int) -> int:
        return max(1, round(self.share * size))


@dataclass(frozen=True)
class RandomGroups:
    """Coordinates in random groups, drawn again at each step: a group moves as one.

    Source: Bhagoji et al. 2018 (arXiv:1712.09491), section 3.3, random grouping.

    size: coordinates in a group; the last group may have fewer.

    Groups save queries: 16 pixels in groups of 4 take 8 of them a step.
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> source = {"name": "directional-differences", "basis": {"name": "random-groups", "size": 4}}
    >>> attack = {"name": "pgd", "steps": 10, "gradient": source}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.005], search="exhaustive")
    >>> int(result.records["queries"].max())
    90
    """

    size: int = 8

    def __post_init__(self) -> None:
        at_least(1, size=self.size)

    def count(self, problem: Problem) -> int:
        """How many groups the coordinates make."""
        return -(-problem.x[0].numel() // self.size)

    def vectors(self, problem: Problem, numbers: Tensor) -> Tensor:
        """(B, n) -> (B, n, D): the same number in every coordinate of a group, 0 elsewhere."""
        total = problem.x[0].numel()
        group = problem.draws.permutation(total, "groups") // self.size
        in_group = (group[:, None, :] == numbers[:, :, None]).to(problem.x.dtype)
        return in_group / in_group.sum(dim=2, keepdim=True).sqrt()


@dataclass(frozen=True)
class PrincipalComponents:
    """The directions in which the attacker's own images differ most.

    Source: Bhagoji et al. 2018 (arXiv:1712.09491), section 3.3, query reduction by PCA.

    components: how many; no more than there are images or coordinates.

    The attacker's images differ in one direction only, and it is the right one:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> basis = {"name": "principal-components", "components": 1}
    >>> source = {"name": "directional-differences", "basis": basis}
    >>> attack = {"name": "pgd", "gradient": source}
    >>> _, own, _ = linear_example(100)
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.055], attacker_images=own)
    >>> result.curve["robust_accuracy"].tolist()
    [0.5]
    """

    components: int = 50
    _axes: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_least(1, components=self.components)

    def prepare(self, preparation: Preparation) -> "PrincipalComponents":
        """Compute them, from at most 2,000 of the attacker's images.

        Raises: BadParameter when the attacker has no images.
        """
        owned = preparation.images
        if owned is None:
            raise BadParameter(
                "principal components need images of the attacker's own: "
                "pass attacker_images to evaluate(), or use a dataset with a training split"
            )
        generator = torch.Generator().manual_seed(preparation.seed)
        chosen = torch.randperm(len(owned), generator=generator)[:_ENOUGH]
        images = owned.images.read(chosen).flatten(1).double()
        centred = images - images.mean(dim=0)
        axes = torch.linalg.svd(centred, full_matrices=False).Vh[: self.components]
        fitted = replace(self)
        object.__setattr__(fitted, "_axes", axes.float())
        return fitted

    def count(self, problem: Problem) -> int:
        """How many components were found."""
        return len(self._fitted(problem))

    def vectors(self, problem: Problem, numbers: Tensor) -> Tensor:
        """(B, n) -> (B, n, D): components, the one of largest variance first."""
        return self._fitted(problem)[numbers]

    def _fitted(self, problem: Problem) -> Tensor:
        if self._axes is None:
            raise BadParameter("principal components must be prepared before they are used")
        return self._axes.to(problem.x)


def _waves(size: int, like: Tensor) -> Tensor:
    """(size, size): row f is the cosine of frequency f, of length 1: the orthonormal DCT-II."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) * torch.pi / size
    waves = (torch.arange(size)[:, None] * place).cos() * (2.0 / size) ** 0.5
    waves[0] *= 0.5**0.5
    shaped: Tensor = waves.to(like)
    return shaped
