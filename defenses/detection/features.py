"""What a network computes on the way: the features that detectors look at."""

from typing import Any

import torch
from torch import Tensor, nn

from ...bench.api.errors import BadParameter
from ...bench.api.shared.layer_outputs import layer_named, recorded


def with_features(network: nn.Module, x: Tensor, layer: str | None) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and features (N, D) of images (N, C, H, W), in one pass, with their graph.

    layer: the name of a layer, whose output is taken, averaged over space. None: the input of the
    linear layer that is run last, the penultimate layer's features.

    Raises: BadParameter when there is no such layer, or it returns no features.
    """
    linear = [one for one in network.modules() if isinstance(one, nn.Linear)]
    read = linear if layer is None else [layer_named(network, layer)]
    with recorded(read, inputs=layer is None) as seen:
        logits = network(x)
    features = seen[-1][1] if seen else None
    if not isinstance(features, Tensor) or features.dim() < 2 or len(features) != len(x):
        wanted = "a linear layer" if layer is None else f"layer '{layer}'"
        raise BadParameter(f"the network has no features (N, D) at {wanted}: name another layer")
    return logits, features.flatten(2).mean(dim=2) if features.dim() > 2 else features


class Fitted(nn.Module):
    """A module whose buffers get their sizes when it is fitted, or from a checkpoint."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name, buffer in self._buffers.items():
            value = state_dict.get(prefix + name)
            if buffer is not None and value is not None and not buffer.numel():
                self._buffers[name] = torch.empty_like(value, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
