"""The examples that cells kept, as pictures for the page."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...api.shared.safe_text import plain
from ...store.cell import Cell
from ...store.hashing import hash_file
from ...store.records import examples_file

LARGEST = 64  # pixels of a side; larger ones are shrunk
_EACH = 4  # of the nearest, and as many of median distance, of a cell
_RAMP = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # of maps


@dataclass(frozen=True)
class Picture:
    """An example before and after the attack, with what changed, as data URIs.

    index: in the test split. label, prediction: the names of its class, and of that which the
    adversarial example is taken for; empty where that is not kept. kind: "nearest" or "median".
    scale: what the perturbation was multiplied by to be seen.
    clean_map, adversarial_map: where the network looked, on one scale; empty where nobody asked.
    """

    index: int
    label: str
    prediction: str
    kind: str
    distance: float
    scale: float
    clean: str
    adversarial: str
    perturbation: str
    clean_map: str = ""
    adversarial_map: str = ""


def pictures(
    directory: Path, entry: Mapping[str, Any], cell: Cell, classes: Sequence[str] = ()
) -> Iterator[Picture]:
    """A cell's kept examples, the nearest first; none where it kept none, or they were changed.

    classes: their names; numbers without them. One beyond them is a rejection.
    """
    file = examples_file(directory / str(entry["file"]))
    expected = cell.about.get("kept_examples")
    if expected is None or not file.is_file() or hash_file(file) != expected:
        return
    from safetensors.numpy import load_file

    kept = load_file(file)
    chosen = [
        number
        for worst in (True, False)
        for number in np.flatnonzero(kept["worst"] == worst)[:_EACH].tolist()
    ]
    maps = _maps(directory / "explain" / f"{file.stem}.maps.safetensors", expected)
    indices, labels = (cell.records[name].to_numpy() for name in ("index", "label"))
    for number in chosen:
        row = int(kept["row"][number])
        clean, adversarial = kept["x"][number], kept["x_adv"][number]
        delta = adversarial - clean
        largest = float(np.abs(delta).max()) or 1.0
        yield Picture(
            index=int(indices[row]),
            label=_name(labels[row], classes),
            prediction=_name(kept["prediction"][number], classes) if "prediction" in kept else "",
            kind="nearest" if kept["worst"][number] else "median",
            distance=float(kept["distance"][number]),
            scale=0.5 / largest,
            clean=_uri(clean),
            adversarial=_uri(adversarial),
            perturbation=_uri(0.5 + 0.5 * delta / largest),
            **maps.get(number, {}),
        )


def _maps(file: Path, examples: str) -> dict[int, dict[str, str]]:
    """The maps that `quintain explain` made of a cell's kept examples, by their places in it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as kept:
            if (kept.metadata() or {}).get("examples") != examples:
                return {}
            rows, *maps = (kept.get_tensor(one) for one in ("row", "clean_map", "adversarial_map"))
    except (OSError, SafetensorError):
        return {}
    names, made = ("clean_map", "adversarial_map"), {}
    for row, *pair in zip(rows.tolist(), *maps, strict=True):
        most = max(float(one.max()) for one in pair) or 1.0
        made[row] = {name: _uri(_heat(one / most)) for name, one in zip(names, pair, strict=True)}
    return made


def _heat(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) in [0, 1] -> (3, H, W): black, purple, orange, pale yellow, lighter all the way."""
    places = np.linspace(0.0, 1.0, len(_RAMP))
    return np.stack(
        [np.interp(values, places, [one[channel] / 255 for one in _RAMP]) for channel in range(3)]
    ).astype(np.float32)


def size_of(shown: Sequence[Picture]) -> int:
    """How many characters the pictures take on the page."""
    return sum(
        len(uri)
        for one in shown
        for uri in (
            one.clean,
            one.adversarial,
            one.perturbation,
            one.clean_map,
            one.adversarial_map,
        )
    )


def _name(number: Any, classes: Sequence[str]) -> str:
    place = int(number)
    if not classes:
        return str(place)
    return plain(classes[place]) if place < len(classes) else "rejected"


def _uri(image: NDArray[np.float32]) -> str:
    """(C, H, W) in [0, 1] -> a PNG of at most 64 pixels a side, as a data URI."""
    pixels = np.rint(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)
    shown = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
    return _png(shown.tobytes(), shown.shape)


@lru_cache(maxsize=1024)  # many cells keep the same clean images
def _png(pixels: bytes, shape: tuple[int, ...]) -> str:
    from PIL import Image

    made = Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(shape))
    if max(made.size) > LARGEST:
        made.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    out = io.BytesIO()
    made.save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
