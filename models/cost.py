"""What a network costs: parameters, and multiply-adds of one forward pass of one image.

A multiply-add is a multiplication with the addition that follows it, as the papers count; twice as
many are "FLOPs" to some. Counted are those of convolutions and matrix products, whatever layer does
them: of each output, the products that it sums, padding included. Not counted are biases,
normalisation, activations, pooling and sums of branches. Layers with matrices of weights that were
called and did none of these are named in `Cost.uncounted`: they compute otherwise.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..bench.api.errors import BadParameter, closest
from ..bench.api.shared.multiply_adds import MultiplyAdds

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LayerCost:
    """One layer, or all that is within one.

    kind: its class. calls: how often it was called in the pass. output: the shape of what it gave
    last, without the batch: (channels, height, width) of a convolution; empty where it was not
    called, or gave something other than a tensor. parameters: each counted once, wherever shared.
    """

    name: str
    kind: str
    calls: int
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Cost:
    """What a network costs as a whole.

    parameters: all of them, those of layers that were not called too. layers: those with parameters
    of their own, in order. uncounted: names of layers that may multiply by weights in a way that is
    not counted, so that multiply_adds is too low; "" is the network itself. every: all layers.
    """

    parameters: int
    multiply_adds: int
    layers: tuple[LayerCost, ...]
    uncounted: tuple[str, ...]
    every: "dict[str, LayerCost]" = field(repr=False)

    def of(self, names: Iterable[str]) -> tuple[LayerCost, ...]:
        """What the named layers cost, with all that is within them: of modules, stages, blocks.

        Raises: BadParameter for a layer that there is not.
        """
        found = []
        for name in names:
            if name not in self.every:
                near = closest(name, self.every) or "; names are as in `model.named_modules()`"
                raise BadParameter(f"no layer '{name}'{near}")
            found.append(self.every[name])
        return tuple(found)

    def table(self, names: Iterable[str] | None = None) -> "pd.DataFrame":
        """One row a layer: those with parameters, or those named, with what is within them.

        Raises: BadParameter for a layer that there is not.
        """
        import pandas as pd

        rows = self.layers if names is None else self.of(names)
        return pd.DataFrame([asdict(one) for one in rows])


def cost(model: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """Count a network's parameters and multiply-adds by running it once, in evaluation mode.

    shape: (C, H, W) of the images. The network is left in the mode that it was in. One that was
    built under `torch.device("meta")` costs no time and no memory.

    >>> import torch
    >>> from quintain.models.cost import cost
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten())
    >>> found = cost(network, (1, 8, 8))
    >>> found.parameters, found.multiply_adds
    (40, 1296)
    """
    record = _Record()
    first = next(iter(model.parameters()), torch.empty(0))
    x = torch.zeros(1, *shape, device=first.device)
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(_as_used(model))
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(record.begin).remove)
            stack.callback(module.register_forward_hook(record.end).remove)
        stack.enter_context(record.counter)
        model(x)
    every = {name: record.within(name, module) for name, module in model.named_modules()}
    own = {
        name: record.alone(name, module)
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    return Cost(
        parameters=every[""].parameters,
        multiply_adds=every[""].multiply_adds,
        layers=tuple(own.values()),
        uncounted=tuple(
            name
            for name, one in own.items()
            if one.calls and not one.multiply_adds and _has_matrix(model.get_submodule(name))
        ),
        every=every,
    )


class _Record:
    """What was seen of each module in the pass."""

    def __init__(self) -> None:
        self.counter = MultiplyAdds()
        self.calls: Counter[nn.Module] = Counter()
        self.counted: Counter[nn.Module] = Counter()  # without what is within the module
        self.outputs: dict[nn.Module, tuple[int, ...]] = {}
        self._running: list[nn.Module] = []

    def begin(self, module: nn.Module, _: Any) -> None:
        """Forward pre-hook."""
        self._assign()
        self._running.append(module)

    def end(self, module: nn.Module, _: Any, output: Any) -> None:
        """Forward hook."""
        self._assign()
        self._running.pop()
        self.calls[module] += 1
        if isinstance(output, Tensor):
            self.outputs[module] = tuple(output.shape[1:])

    def _assign(self) -> None:
        """What was counted since the last hook belongs to the innermost module that is running."""
        if self._running:
            self.counted[self._running[-1]] += self.counter.total
        self.counter.total = 0

    def alone(self, name: str, module: nn.Module) -> LayerCost:
        """The layer without what is within it."""
        return self._cost(name, module, module.parameters(recurse=False), [module])

    def within(self, name: str, module: nn.Module) -> LayerCost:
        """The layer and all that is within it."""
        return self._cost(name, module, module.parameters(), module.modules())

    def _cost(
        self,
        name: str,
        module: nn.Module,
        parameters: Iterable[nn.Parameter],
        modules: Iterable[nn.Module],
    ) -> LayerCost:
        return LayerCost(
            name,
            type(module).__name__,
            self.calls[module],
            self.outputs.get(module, ()),
            sum(one.numel() for one in parameters),
            sum(self.counted[one] for one in modules),
        )


def _has_matrix(module: nn.Module) -> bool:
    """Whether a layer has weights of two axes or more of its own."""
    return any(one.dim() > 1 for one in module.parameters(recurse=False))


@contextmanager
def _as_used(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, for the while; each layer returns to its own mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
