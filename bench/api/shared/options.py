"""What users name in options: a device, a radius, a number of jobs. All raise one clear line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..epsilon import Epsilon, Norm, check_radii
from ..errors import BadParameter, closest

if TYPE_CHECKING:
    import torch

_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def parse_device(name: str, *, elsewhere: bool = False) -> "torch.device":
    """Read a device's name; "auto" is the GPU where there is one.

    elsewhere: it is of workers on other machines, each with a GPU of its own; this one may have
    none.

    Raises: BadParameter when there is no such device here, or when a GPU elsewhere has a number.
    """
    import torch  # not for the other options: names are checked before it is there

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if elsewhere and device.type == "cuda":
            if ":" in name:
                raise BadParameter(f"--device {name}: workers have a GPU each, say --device cuda")
            return device
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


def read_jobs(written: str) -> int | None:
    """Read how many workers there are to be; None for "auto", as many as there is a place for.

    Raises: BadParameter.
    """
    if written == "auto":
        return None
    if not (written.isascii() and written.isdigit() and int(written) > 0):
        raise BadParameter(f"--jobs {written}: a number of workers, from 1, or auto")
    return int(written)
