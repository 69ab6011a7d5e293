"""Weights and buffers as they were: what an attack writes into them is found, and taken back."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..api.errors import CellError


@dataclass(frozen=True)
class _Kept:
    """One weight or buffer: where it belongs, the tensor, and a copy of its values."""

    place: dict[str, Tensor | None]
    name: str
    tensor: Tensor
    values: Tensor

    @property
    def changed(self) -> bool:
        """Whether another tensor is in its place, or its values are others."""
        return self.place.get(self.name) is not self.tensor or not _same(self.tensor, self.values)

    def restore(self) -> None:
        """Put it back."""
        self.place[self.name] = self.tensor
        if _same(self.tensor, self.values):
            return
        if self.tensor.shape == self.values.shape and self.tensor.dtype == self.values.dtype:
            self.tensor.detach().copy_(self.values)
        else:
            self.tensor.data = self.values.clone()


class Untouched:
    """A module's weights and buffers, to be compared with what they are later.

    Copies are kept, as much memory as the weights take: a write through `.data` leaves no trace
    that torch would show.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kept: dict[str, _Kept] = {}
        copies: dict[int, Tensor] = {}
        for name, place, key in _places(module):
            tensor = place[key]
            if tensor is not None and not is_lazy(tensor):
                values = copies.setdefault(id(tensor), tensor.detach().clone())
                self._kept[name] = _Kept(place, key, tensor, values)

    def changed(self) -> list[str]:
        """Names of weights and buffers that are not as they were, new ones among them."""
        now = {name for name, place, key in _places(self._module) if place[key] is not None}
        changed = [name for name, one in self._kept.items() if one.changed]
        return changed + sorted(now - self._kept.keys())

    def restore(self) -> None:
        """Put all of them back."""
        for name, place, key in list(_places(self._module)):
            if name not in self._kept and place[key] is not None:
                del place[key]
        for one in self._kept.values():
            one.restore()

    @contextmanager
    def left_alone(self, but: Collection[str] = ()) -> Iterator[None]:
        """Within, attacks work. but: names of what the module itself changes when it is run.

        Raises: CellError, in place of an error that came of it, when they changed anything else.
        """
        try:
            yield
        finally:
            changed = [name for name in self.changed() if name not in but]
            if changed:
                more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
                raise CellError(
                    f"the attack changed the model's {changed[0]}{more}: "
                    "attacks may only read the model"
                )


@contextmanager
def restored(module: nn.Module) -> Iterator[Untouched]:
    """Within, a module may be changed; at the end its weights and buffers are as they were."""
    untouched = Untouched(module)
    try:
        yield untouched
    finally:
        if untouched.changed():
            untouched.restore()


def _places(module: nn.Module) -> Iterator[tuple[str, dict[str, Tensor | None], str]]:
    """Yield each weight's and buffer's name, and the dictionary that it is in, with its key."""
    for prefix, one in module.named_modules():
        for place in (one._parameters, one._buffers):
            for key in list(place.keys()):  # scripted modules have dictionaries of their own
                yield f"{prefix}.{key}" if prefix else key, place, key


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values, NaN where the other has NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if torch.equal(one, other):
        return True
    return bool(((one == other) | ((one != one) & (other != other))).all())
