"""Other people's checkpoints: where in a file the weights are, and under which names."""

import pickle
import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..api.errors import BadCheckpoint
from ..api.shared.safe_text import short

_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_INSIDE = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
_DEPTH = 3  # of such keys, one within the other

# What wrappers put in front of the names: DataParallel, torch.compile, Lightning and the like.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_WITHIN = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod)\.")  # where a part of it is wrapped
_OWN = "normalise."  # of networks here, made from the data
_COUNTER = "num_batches_tracked"  # files of old versions of torch lack it, and nothing here uses it

_CODE = re.compile(r"GLOBAL (\S+)|(?:function|class) (\S+)|(TorchScript)")
_EXPORT = (
    "python -c \"import torch; f = torch.load('FILE', map_location='cpu', weights_only=False); "
    "torch.save(f.state_dict() if hasattr(f, 'state_dict') else f['state_dict'], 'weights.pt')\""
)


def read_state_dicts(path: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The state dicts in a file of torch's own, each with the keys that lead to it.

    Averaged weights come before the others. No code in the file is run.

    Raises: BadCheckpoint when it cannot be read, or holds none.
    """
    _refuse_compressed(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind, or one that would run code
        raise BadCheckpoint(f"checkpoint {path} cannot be read{_why(error)}") from None
    content = list(_content(found, "", _DEPTH))
    if not content:
        raise BadCheckpoint(
            f"checkpoint {path} holds no state dict, at the top or under "
            + ", ".join((*_INSIDE, *_AVERAGED))
        )
    yield from content


def fitted(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that a network has for them.

    Prefixes of wrappers are taken off when the names then fit, all of them. What may be missing:
    batch normalisation's counters, and the `normalise` of a network that takes images in [0, 1].

    Raises: Misfit, which says how near the names come.
    """
    nearest: Misfit | None = None
    own = {name: name for name in wanted if name.startswith(_OWN)}
    for reading in _readings(name for name in wanted if not name.startswith(_OWN)):
        ours = reading | own
        needed = {short_ for short_, name in ours.items() if not _optional(name)}
        for theirs in _readings(tensors):
            missing = [name for name in ours if name in needed and name not in theirs]
            excess = [name for name in theirs if name not in ours]
            if not (missing or excess):
                return {ours[name]: tensors[theirs[name]] for name in theirs}
            misfit = Misfit(
                len(needed) - len(missing),
                len(needed),
                [ours[name] for name in missing[:1]],
                [theirs[name] for name in excess[:1]],
            )
            if nearest is None or misfit.matching > nearest.matching:
                nearest = misfit
    assert nearest is not None
    raise nearest


@dataclass
class Misfit(Exception):
    """Names that do not fit a network: how many do, of how many, and the first that do not.

    missing: of the network, as it calls it. excess: of the file, as it is there.
    """

    matching: int
    needed: int
    missing: list[str]
    excess: list[str]

    def __str__(self) -> str:
        said = [f"it lacks {short(name)}" for name in self.missing]
        said += [f"it also holds {short(name)}" for name in self.excess]
        return f"{', '.join(said)} ({self.matching} of {self.needed} names match)"


def _refuse_compressed(path: Path) -> None:
    """Refuse an archive that holds more than its size: torch stores, and never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(one.file_size for one in archive.infolist())
    except Exception:  # no archive, or one that torch itself will complain about
        return
    if claimed > path.stat().st_size:
        raise BadCheckpoint(
            f"checkpoint {path} is compressed, which torch never does: it would become "
            f"{claimed:,} bytes of {path.stat().st_size:,}"
        )


def _why(error: Exception) -> str:
    """What torch says, in one line; and how to go on where it refused to run code."""
    text = " ".join(str(error).split())
    code = _CODE.search(text)
    if code is None or not isinstance(error, (pickle.UnpicklingError, RuntimeError)):
        return f": {short(text.partition('. ')[0])}"
    name = next(one for one in code.groups() if one)
    return (
        f" without running what is in it ({short(name.strip('<>.'))}); if you trust its maker, "
        f"export the weights: {_EXPORT}"
    )


def _content(found: Any, keys: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(found, Mapping) or not found:
        return
    if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        yield keys, dict(found)
    elif depth:
        for key in (*_AVERAGED, *_INSIDE):
            yield from _content(found.get(key), f"{keys}.{key}" if keys else key, depth - 1)


def _readings(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """Names in the ways that they can be read, each with the name that it was.

    As they are; without one prefix after the other, where all have it; without wrappers within.
    """
    plain = {name: name for name in names}
    yield from _without_prefixes(plain)
    inner = {_WITHIN.sub("", name): name for name in plain}
    if len(inner) == len(plain) and inner.keys() != plain.keys():
        yield from _without_prefixes(inner)


def _without_prefixes(names: Mapping[str, str]) -> Iterator[dict[str, str]]:
    names = dict(names)
    yield names
    while prefix := next((one for one in _PREFIXES if _all_begin(names, one)), ""):
        names = {name.removeprefix(prefix): was for name, was in names.items()}
        yield names


def _all_begin(names: Iterable[str], prefix: str) -> bool:
    listed = list(names)
    return bool(listed) and all(name.startswith(prefix) for name in listed)


def _optional(name: str) -> bool:
    return name.startswith(_OWN) or name.rpartition(".")[2] == _COUNTER
