"""The examples that cells kept, as pictures for the page."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...api.shared.safe_text import plain
from ...store.cell import Cell
from ...store.hashing import hash_file
from ...store.records import examples_file

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 64  # pixels of a side; larger ones are shrunk
_PANELS = 900  # pixels of the width of panels
_EACH = 4  # of the nearest, and as many of median distance, of a cell


@dataclass(frozen=True)
class Picture:
    """An example before and after the attack, with what changed, as data URIs.

    index: in the test split. label, prediction: the names of its class, and of that which the
    adversarial example is taken for; empty where that is not kept. kind: "nearest" or "median".
    scale: what the perturbation was multiplied by to be seen.
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
    for number in chosen:
        row = int(kept["row"][number])
        record = cell.records.iloc[row]
        clean, adversarial = kept["x"][number], kept["x_adv"][number]
        delta = adversarial - clean
        largest = float(np.abs(delta).max()) or 1.0
        yield Picture(
            index=int(record["index"]),
            label=_name(record["label"], classes),
            prediction=_name(kept["prediction"][number], classes) if "prediction" in kept else "",
            kind="nearest" if kept["worst"][number] else "median",
            distance=float(kept["distance"][number]),
            scale=0.5 / largest,
            clean=_uri(clean),
            adversarial=_uri(adversarial),
            perturbation=_uri(0.5 + 0.5 * delta / largest),
        )


@dataclass(frozen=True)
class Shown:
    """What is shown of a cell. maps: where the network looked, if it was drawn; else empty."""

    pictures: Sequence[Picture]
    maps: str = ""

    @property
    def size(self) -> int:
        """How many characters it takes on the page."""
        each = (
            len(one.clean) + len(one.adversarial) + len(one.perturbation) for one in self.pictures
        )
        return sum(each) + len(self.maps)


def attention_maps(directory: Path, entry: Mapping[str, Any]) -> str:
    """What `quintain explain DIRECTORY` drew of a cell, as a data URI; "" where it did not."""
    file = directory / "explain" / f"{Path(str(entry['file'])).stem}.png"
    if not file.is_file():
        return ""
    from PIL import Image

    with Image.open(file) as image:
        made = image.convert("RGB")
    made.thumbnail((_PANELS, 4 * _PANELS))
    return _encoded(made.quantize(64, dither=Image.Dither.NONE))


def _name(number: Any, classes: Sequence[str]) -> str:
    place = int(number)
    if not classes:
        return str(place)
    return plain(classes[place]) if place < len(classes) else "rejected"


def _uri(image: NDArray[np.float32]) -> str:
    """(C, H, W) in [0, 1] -> a PNG of at most 64 pixels a side, as a data URI."""
    from PIL import Image

    pixels = np.rint(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)
    gray = pixels.shape[0] != 3
    made = Image.fromarray(pixels[0] if gray else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if max(made.size) > LARGEST:
        made.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    return _encoded(made)


def _encoded(image: "Image.Image") -> str:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
