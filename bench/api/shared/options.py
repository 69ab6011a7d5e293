"""What users name in options: a device, a radius, a number of jobs. All raise one clear line."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..epsilon import Epsilon, Norm, check_radii
from ..errors import BadParameter, closest

if TYPE_CHECKING:
    import torch

_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def parse_device(name: str) -> "torch.device":
    """Read a device's name; "auto" is the GPU where there is one.

    Raises: BadParameter when there is no such device here.
    """
    import torch  # not for the other options: names are checked before it is there

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # fails on "meta" too, which holds no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        kind = name.partition(":")[0]
        if kind not in _DEVICES:
            near = closest(kind, _DEVICES) or "; there are " + ", ".join(_DEVICES)
            near = near.replace("'?", f"{name.removeprefix(kind)}'?")
            raise BadParameter(f"device '{name}' cannot be used{near}") from None
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise BadParameter(f"device '{name}' cannot be used: {reason}") from None
    return device


def read_radius(
    written: str | None, norm: Norm, shape: Sequence[int] | None = None
) -> float | None:
    """Read a command's --epsilon. shape: (C, H, W) of the images, where it is known.

    Raises: BadParameter when it is no radius, or beyond every image.
    """
    if written is None:
        return None
    try:
        radius = Epsilon.parse(written)
        check_radii([radius], norm, shape)
    except ValueError as error:
        raise BadParameter(f"--epsilon: {error}") from None
    return radius.value


def read_jobs(written: str) -> int:
    """Read how many processes are to work; "auto" is the number of cores that this one may use.

    Raises: BadParameter.
    """
    if written == "auto":
        usable = getattr(os, "sched_getaffinity", None)  # not on every system
        return len(usable(0)) if usable is not None else os.cpu_count() or 1
    if not (written.isascii() and written.isdigit() and int(written) > 0):
        raise BadParameter(f"--jobs {written}: a number of processes, from 1, or auto")
    return int(written)
