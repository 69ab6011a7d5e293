"""What the layers of a network give, read by name."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ..bench.api.errors import BadParameter, closest


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
    wanted = list(layers)
    known = dict(model.named_modules(remove_duplicate=False))
    modules = {one: _layer(known, one) for one in wanted}
    seen: dict[nn.Module, list[Any]] = defaultdict(list)
    with ExitStack() as hooks:
        for module in set(modules.values()):
            hooks.enter_context(_recorded(module, seen[module]))
        model(x)
    return {one: _output(one, seen[module]) for one, module in modules.items()}


@contextmanager
def _recorded(module: nn.Module, into: list[Any]) -> Iterator[None]:
    def keep(_: nn.Module, __: Any, output: Any) -> Any:
        into.append(output)
        # The layers after it get a copy: an operation in place would change what was recorded.
        return output.clone() if isinstance(output, Tensor) else output

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _split(wanted: str) -> tuple[str, int | None]:
    """The name of a layer, and which of its calls is meant."""
    name, colon, call = wanted.partition(":")
    if not colon:
        return name, None
    if not call.isdecimal() or call == "0":
        raise BadParameter(f"layer '{wanted}': '{call}' is not the number of a call, such as 1")
    return name, int(call)


def _layer(known: dict[str, nn.Module], wanted: str) -> nn.Module:
    name, _ = _split(wanted)
    if name in known and name:
        return known[name]
    names = [one for one in known if one]
    near = closest(name, names) or ";"
    raise BadParameter(f"no layer '{name}'{near} {_what_there_is(name, known)}")


def _what_there_is(name: str, known: dict[str, nn.Module]) -> str:
    """The layers within the nearest one above that exists: the rest may be hundreds."""
    above = name.rpartition(".")[0]
    while above not in known:
        above = above.rpartition(".")[0]
    inside = [child for child, _ in known[above].named_children()]
    where = f"'{above}'" if above else "the network"
    return f"{where} has {', '.join(inside) or 'no layers inside'}"


def _output(wanted: str, outputs: list[Any]) -> Tensor:
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
