"""What the layers of a network give, or take, in a pass: read by hooks, for all who look inside."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ..errors import BadParameter, closest


@contextmanager
def recorded(
    modules: Iterable[nn.Module], *, inputs: bool = False
) -> Iterator[list[tuple[nn.Module, Any]]]:
    """Within, each call of a module adds it and its output to the list; its first input if asked.

    Of outputs the layers that follow get a copy: an operation in place would change the recorded.
    """
    seen: list[tuple[nn.Module, Any]] = []

    def keep_input(module: nn.Module, given: tuple[Any, ...]) -> None:
        seen.append((module, given[0]))

    def keep_output(module: nn.Module, _: Any, output: Any) -> Any:
        seen.append((module, output))
        return output.clone() if isinstance(output, Tensor) else output

    with ExitStack() as hooks:
        for module in set(modules):
            hook = (
                module.register_forward_pre_hook(keep_input)
                if inputs
                else module.register_forward_hook(keep_output)
            )
            hooks.callback(hook.remove)
        yield seen


def layer_named(network: nn.Module, name: str) -> nn.Module:
    """A layer, by its name as `named_modules()` has it, also under the second of two names.

    Raises: BadParameter, naming the closest, and the layers within the nearest one above that there
    is: all of them may be hundreds.
    """
    known: dict[str, nn.Module] = dict(network.named_modules(remove_duplicate=False))
    if name in known and name:
        return known[name]
    above = name.rpartition(".")[0]
    while above not in known:
        above = above.rpartition(".")[0]
    inside = [child for child, _ in known[above].named_children()]
    where = f"'{above}'" if above else "the network"
    raise BadParameter(
        f"no layer '{name}'{closest(name, [one for one in known if one]) or ';'} "
        f"{where} has {', '.join(inside) or 'no layers inside'}"
    )
