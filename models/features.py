"""What the layers of a network give, read by name."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from ..bench.api.errors import BadParameter
from ..bench.api.shared.layer_outputs import layer_named, recorded


def features(model: nn.Module, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Run a network once, and return what the named layers gave: name -> output, in that order.

    x: (B, C, H, W) in [0, 1]. layers: names as `model.named_modules()` has them, of layers or whole
    stages: "stage2.1", "classifier". A layer that is called more than once in a pass needs to be
    told which call: "layer1.0.relu:2" is the second.

    The outputs are part of the graph if gradients are on, so that one can be differentiated by
    another (the logits by a feature map), and by x. A later operation in place does not change
    them. The network stays in the mode that it is in: call `eval()` first for what it does in use.

    Raises: BadParameter for a layer that there is not, that is not called in this mode, that is
    called more or fewer times, or that gives something other than a tensor.

    >>> import torch
    >>> from quintain.bench.api.examples import linear_example
    >>> from quintain.models.features import features
    >>> model, images, _ = linear_example()
    >>> {name: tuple(out.shape) for name, out in features(model, images, ["0", "1"]).items()}
    {'0': (10, 16), '1': (10, 2)}
    """
    modules = {one: layer_named(model, _split(one)[0]) for one in layers}
    with recorded(modules.values()) as seen:
        model(x)
    return {
        one: _output(one, [output for caller, output in seen if caller is module])
        for one, module in modules.items()
    }


def _split(wanted: str) -> tuple[str, int | None]:
    """The name of a layer, and which of its calls is meant."""
    name, colon, call = wanted.partition(":")
    if not colon:
        return name, None
    if not call.isdecimal() or call == "0":
        raise BadParameter(f"layer '{wanted}': '{call}' is not the number of a call, such as 1")
    return name, int(call)


def _output(wanted: str, outputs: Sequence[Any]) -> Tensor:
    name, call = _split(wanted)
    if not outputs:
        raise BadParameter(f"layer '{name}' is not called when the network is in this mode")
    if call is None and len(outputs) > 1:
        raise BadParameter(
            f"layer '{name}' is called {len(outputs)} times; say which: '{name}:1' is the first"
        )
    if call is not None and call > len(outputs):
        raise BadParameter(f"layer '{wanted}': it is called {len(outputs)} times only")
    output = outputs[(call or 1) - 1]
    if not isinstance(output, Tensor):
        raise BadParameter(f"layer '{name}' gives a {type(output).__name__}, not a tensor")
    return output
