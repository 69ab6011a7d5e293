"""Averages of weights over the steps of training."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Average:
    """An exponential moving average of a network's weights (Polyak & Juditsky 1992).

    After each step: average = d average + (1 - d) weights, with d the smaller of `decay` and
    (1 + n) / (10 + n) after n steps, so that the first weights, which know nothing, are soon
    forgotten. Floating-point buffers, such as the running statistics of batch normalisation, are
    averaged like the weights: they then are those of the networks averaged over. Constant ones stay
    as they are to the bit, and counters are copied.

    model: a network with the average as its weights. Do not train it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self.updates = 0
        ours = [*self.model.parameters(), *self.model.buffers()]
        theirs = [*model.parameters(), *model.buffers()]
        pairs = list(zip(ours, (one.detach() for one in theirs), strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._ours, self._theirs = [one for one, _ in floating], [one for _, one in floating]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self) -> None:
        """Take the weights of the moment in. On a GPU this is a kernel or two, without waiting."""
        decay = min(self.decay, (1.0 + self.updates) / (10.0 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(self._ours, self._theirs, 1.0 - decay)
        for one, other in self._others:
            one.copy_(other)

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on needs of it."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
