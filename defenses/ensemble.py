"""Ensembles: several networks that answer as one."""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..bench.api import registry
from ..bench.api.defense import Trained, Training
from ..bench.api.errors import BadParameter, check_choice
from .training.loop.training_config import at_least, require
from .wrapper import Wrapper, wrapped

Combination = Literal["probabilities", "logits"]

_SEEDS = 2**32
_MOST = 1000  # networks; a checkpoint may ask for any number
_OWN = 3  # networks of the model at hand, if nothing is said


@dataclass(frozen=True, kw_only=True)
class Ensemble(Wrapper):
    """Ensemble: the mean of several networks, of other first weights or other architectures.

    Source: averaging is as old as committees (Hansen & Salamon 1990); that an ensemble of weak
    defenses is no strong one is He et al. 2017 (arXiv:1706.04701). Gradients flow through all
    members, so that attacks meet the ensemble and not a member. Members are trained apart from each
    other, by `base`, and shared through the cache with whoever else wants them.

    size: networks of each architecture, of seeds one after another; by default 3 of the model at
        hand, or 1 of each of the members.
    members: specs of models, such as {name = "resnet", depth = 8}; by default the model at hand.
    combination: "probabilities" are averaged, and their logarithm is returned, or "logits".
    base: the defense of each member. Random numbers of its layers are the same for all members.

    Raises: BadParameter for a value that cannot be used.

    What comes out are logarithms of probabilities:
    >>> from quintain.bench.api.examples import linear_example
    >>> from quintain.defenses.ensemble import Ensemble
    >>> model, images, _ = linear_example()
    >>> joined = Ensemble(size=2).wrap(model)
    >>> round(joined(images[:1]).exp().sum().item(), 4)
    1.0
    """

    size: int | None = None
    members: tuple[Mapping[str, Any], ...] = ()
    combination: Combination = "probabilities"

    def __post_init__(self) -> None:
        at_least("size", self.size, 1)
        if (self.size or 1) > _MOST:
            raise BadParameter(f"size = {self.size} must be {_MOST} at most")
        check_choice("combination", self.combination, get_args(Combination))
        if not self.members and self.size == 1:
            raise BadParameter("an ensemble of one network is none: size must be 2 or more")
        require("base", self.base, not self.rejects, "a defense that does not reject")
        for spec in self.members:
            registry.bind("models", spec)

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Obtain the members, and join them. Rows of the history say whose they are: `member`.

        Raises: CellError when training diverges; BadParameter where no other network can be had.
        """
        if training.obtain is None:
            raise BadParameter("an ensemble needs more networks than the one at hand")
        trained = [
            training.obtain(self.base, seed=(training.seed + number) % _SEEDS, model=spec)
            for spec, number in self._roll()
        ]
        flags = tuple(dict.fromkeys(flag for one in trained for flag in one.flags))
        history = tuple(
            {**row, "member": number}
            for number, one in enumerate(trained, 1)
            for row in one.history
        )
        return Trained(Joined((one.model for one in trained), self.combination), history, flags)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Join untrained members: copies of the model, or networks of the members' specs.

        Raises: BadParameter when it is not known what input the model was built for.
        """
        return Joined(
            (wrapped(self.base, _like(model, spec)) for spec, _ in self._roll()), self.combination
        )

    def _roll(self) -> list[tuple[Mapping[str, Any] | None, int]]:
        """Each member's spec, None for the model at hand, and its number among those alike."""
        specs: tuple[Mapping[str, Any] | None, ...] = self.members or (None,)
        size = self.size or (1 if self.members else _OWN)
        return [(spec, number) for spec in specs for number in range(size)]


class Joined(nn.Module):
    """Networks as one, by the mean of their probabilities or of their logits."""

    def __init__(self, networks: Iterable[nn.Module], combination: Combination) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.combination = combination

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K): mean logits, or the logarithm of mean probabilities."""
        logits = torch.stack([one(x) for one in self.networks])
        if self.combination == "logits":
            return logits.mean(dim=0)
        # never the logarithm of 0: a probability too small for float32 keeps its gradient
        total = logits.log_softmax(dim=2).logsumexp(dim=0)
        return total - math.log(len(self.networks))


def _like(model: nn.Module, spec: Mapping[str, Any] | None) -> nn.Module:
    """A fresh network of a spec for the input that the model was built for, or a copy of it."""
    if spec is None:
        return copy.deepcopy(model)
    inputs = getattr(model, "built_for", None)
    if inputs is None:
        raise BadParameter("members of an ensemble cannot be built beside a model of unknown input")
    with torch.random.fork_rng(devices=[]):  # its weights are to be replaced
        network: nn.Module = registry.bind("models", spec)(inputs)
    return network.to(memory_format=torch.channels_last)
