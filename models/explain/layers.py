"""Layers by name: what they give for a batch, how large their maps are, and which one to look at.

Every method here reads a network through this module. The network is run in evaluation mode and
left in the mode that it was in; a name is one of `model.named_modules()`, with ":2" for the second
call of a layer that is called more than once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...bench.api.errors import BadData, BadParameter, QuintainError, reason
from ...bench.api.rng import Draws, ambient
from ..features import features

SMALLEST_MAP = 4
"""Pixels a side: on fewer, "where" says little."""

_STOCHASTIC_DRAWS = 16


_MAP_AXES = 4


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer in a pass.

    name: with its number where there are several; "" is the network itself. given: what went in,
    where that is a tensor. output: what came out. Both are copies.
    """

    name: str
    module: nn.Module
    given: Tensor | None
    output: Tensor

    @property
    def is_map(self) -> bool:
        """Whether it gives (B, C, H, W)."""
        return self.output.dim() == _MAP_AXES

    @property
    def side(self) -> int:
        """The shorter side of a map, in pixels."""
        return min(self.output.shape[2:])


def read(model: nn.Module, x: Tensor, layers: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a network once in evaluation mode: logits (B, K), and name -> output of each layer.

    x: (B, C, H, W) in [0, 1]. The outputs are part of the graph where gradients are on.

    Raises: BadData for images that the network does not take; BadParameter for a layer that there
    is not (with the nearest name), or whose output cannot be read.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    >>> logits, found = read(model, torch.rand(5, 3, 8, 8), ["0"])
    >>> logits.shape, found["0"].shape
    (torch.Size([5, 2]), torch.Size([5, 4, 6, 6]))
    """
    answers: list[Any] = []
    with evaluating(model), ExitStack() as hooks:
        keep = model.register_forward_hook(lambda _, __, output: answers.append(output))
        hooks.callback(keep.remove)
        with _taking(x):
            found = features(model, x, layers)
    return _logits(answers[-1], x), found


def reader(model: nn.Module, layer: str) -> Callable[[Tensor], Tensor]:
    """The function from images (B, C, H, W) to what one layer gives; "" is the network itself.

    Raises: as `read`, when it is called.
    """

    def represent(x: Tensor) -> Tensor:
        logits, found = read(model, x, [layer] if layer else [])
        return found[layer] if layer else logits

    return represent


def calls(model: nn.Module, x: Tensor) -> tuple[Call, ...]:
    """Every call of a layer in a pass, in the order in which they return: inner before outer.

    Layers that give something other than a tensor are left out.

    Raises: BadData for images that the network does not take.
    """
    seen: list[Call] = []

    def note(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                first = given[0] if given and isinstance(given[0], Tensor) else None
                copied = None if first is None else first.clone()
                seen.append(Call(name, module, copied, output.clone()))

        return keep

    with evaluating(model), ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_hook(note(name)).remove)
        with _taking(x):
            model(x)
    totals, numbers = Counter(one.name for one in seen), Counter[str]()
    found = []
    for one in seen:
        numbers[one.name] += 1
        several = totals[one.name] > 1
        found.append(replace(one, name=f"{one.name}:{numbers[one.name]}") if several else one)
    return tuple(found)


def last_map(model: nn.Module, x: Tensor) -> tuple[str, str]:
    """The last layer whose maps have at least 4x4 pixels, and a note where smaller ones follow it.

    x: (B, C, H, W). The note is empty unless convolutions give smaller maps after that layer. Left
    out are layers that the first class's logit does not depend on, such as those of a second pass
    through the network that serves a detector alone.

    Raises: BadParameter for a network without convolutions, or whose maps are all smaller.
    """
    if not has_convolutions(model):
        raise BadParameter("the network has no convolution, so that no layer of it has maps")
    maps = [call for call in calls(model, x[:1]) if call.is_map]
    large = _that_count(model, x[:1], [call for call in maps if call.side >= SMALLEST_MAP])
    if not large:
        raise BadParameter(f"no layer of the network has maps of {SMALLEST_MAP}x{SMALLEST_MAP}")
    chosen, last = large[-1], [call for call in maps if has_convolutions(call.module)][-1]
    if last.side >= SMALLEST_MAP:
        return chosen.name, ""
    there, here = ("x".join(map(str, one.output.shape[2:])) for one in (last, chosen))
    return chosen.name, (
        f"the last maps, of '{last.name}', have {there} pixels; "
        f"those of '{chosen.name}' were taken, with {here}"
    )


def _that_count(model: nn.Module, x: Tensor, some: list[Call]) -> list[Call]:
    """Those that the first class's logit depends on; all where there is no gradient to tell."""
    with torch.enable_grad():
        logits, found = read(model, x.detach().requires_grad_(), [call.name for call in some])
        graded = [call for call in some if found[call.name].requires_grad]
        if not graded or not logits.requires_grad:
            return some
        slopes = torch.autograd.grad(
            logits[:, 0].sum(), [found[call.name] for call in graded], materialize_grads=True
        )
    return [call for call, one in zip(graded, slopes, strict=True) if bool(one.any())] or some


def check_images(x: Tensor) -> None:
    """Raises: BadData for what is no batch of images, (B, C, H, W) of floats."""
    if x.dim() != _MAP_AXES or not x.is_floating_point() or not len(x):
        have = f"{tuple(x.shape)} of {x.dtype}"
        raise BadData(f"images must be (B, C, H, W) of floats; these are {have}")


def has_convolutions(module: nn.Module) -> bool:
    """Whether there are weights of four axes in it."""
    return any(one.dim() == _MAP_AXES for one in module.parameters())


def checked_classes(classes: Tensor | int, count: int, n_classes: int) -> Tensor:
    """One class for each of `count` images, as (count,) int64.

    Raises: BadParameter for another number of them, or a class that the network does not have.
    """
    found = torch.as_tensor(classes, dtype=torch.int64)
    found = found.expand(count) if found.dim() == 0 else found
    if found.shape != (count,):
        raise BadParameter(f"classes of shape {tuple(found.shape)} for {count} images")
    wrong = found[(found < 0) | (found >= n_classes)]
    if len(wrong):
        raise BadParameter(
            f"class {int(wrong[0])} is out of range: the network has {n_classes} classes, "
            f"0 to {n_classes - 1}"
        )
    return found


def draws_of(model: nn.Module, draws: int | None) -> int:
    """How many passes to average over: as asked, else 16 of a stochastic network and 1 of others.

    Raises: BadParameter for fewer than one.
    """
    if draws is None:
        random = any(getattr(one, "stochastic", False) for one in model.modules())
        return _STOCHASTIC_DRAWS if random else 1
    if draws < 1:
        raise BadParameter(f"draws = {draws} must be 1 or more")
    return draws


@contextmanager
def drawing(seed: int, draw: int, rows: Tensor) -> Iterator[None]:
    """Within, a stochastic layer's random numbers depend on seed, draw and image alone.

    rows: (B,) int64, the numbers of the images in the batch.
    """
    numbers = Draws(seed, rows, torch.zeros_like(rows), torch.full_like(rows, draw))
    with torch.random.fork_rng(devices=[]), ambient(numbers):
        torch.default_generator.manual_seed(seed + draw)
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the while; each layer returns to the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _taking(x: Tensor) -> Iterator[None]:
    """Say of images that the network cannot take what their shape is."""
    check_images(x)
    try:
        yield
    except QuintainError:
        raise
    except (RuntimeError, ValueError) as error:
        shape = "x".join(map(str, x.shape[1:]))
        raise BadData(f"the network does not take images of {shape}: {reason(error)}") from error


def _logits(answer: Any, x: Tensor) -> Tensor:
    if isinstance(answer, Tensor) and answer.dim() == 2 and len(answer) == len(x):
        return answer
    shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    raise BadParameter(f"the network gives {shape} for {len(x)} images, not logits (B, K)")
