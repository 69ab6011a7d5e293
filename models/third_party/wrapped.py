"""What other libraries' networks lack to be ours: images in [0, 1], and logits alone."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ...bench.api.defense import InputSpec
from ...bench.api.errors import BadParameter, errors_as
from ..layers import Normalise

_COLOURS = 3


class Wrapped(nn.Module):
    """A library's network behind the normalisation that it expects.

    Grey images are shown to a network for colours three times over. Auxiliary logits are dropped.
    """

    def __init__(self, network: nn.Module, mean: Iterable[float], std: Iterable[float]) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, K)."""
        if x.shape[1] == 1:
            x = x.expand(-1, self.normalise.mean.shape[1], -1, -1)
        found = self.network(self.normalise(x))
        logits: Tensor = found[0] if isinstance(found, tuple) else found
        return logits


def colours(inputs: InputSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The data's own mean and spread, for a network of three channels."""
    times = _COLOURS if inputs.shape[0] == 1 else 1
    return inputs.mean * times, inputs.std * times


def loaded(title: str, load: Callable[[], nn.Module]) -> nn.Module:
    """Call what builds a network or fetches its weights.

    Raises: BadParameter, when it fails, with the reason.
    """
    with errors_as(BadParameter, f"{title} cannot be made"):
        return load()  # no network, no such weights, an option that it does not know, ...


def telling(
    factory: Callable[..., nn.Module], brings: Callable[[Mapping[str, Any]], bool]
) -> Callable[..., nn.Module]:
    """The factory, which now tells of its hyper-parameters whether the network brings weights."""
    factory.brings_weights = brings  # type: ignore[attr-defined]
    return factory
