"""What a network computes on the way: the features that detectors look at."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ...bench.api.errors import BadParameter, closest


def with_features(network: nn.Module, x: Tensor, layer: str | None) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and features (N, D) of images (N, C, H, W), in one pass, with their graph.

    layer: the name of a layer, whose output is taken, averaged over space. None: the input of the
    linear layer that is run last, the penultimate layer's features.

    Raises: BadParameter when there is no such layer, or it returns no features.
    """
    seen: list[Any] = []
    layers = dict(network.named_modules())
    with ExitStack() as stack:
        if layer is None:
            for one in layers.values():
                if isinstance(one, nn.Linear):
                    hook = one.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
                    stack.enter_context(hook)
        elif layer in layers:
            hook = layers[layer].register_forward_hook(lambda *given: seen.append(given[2]))
            stack.enter_context(hook)
        else:
            raise BadParameter(
                f"the network has no layer '{layer}'{closest(layer, list(layers)) or '.'} "
                f"It has {', '.join(name for name in layers if name)}"
            )
        logits = network(x)
    features = seen[-1] if seen else None
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
