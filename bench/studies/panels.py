"""Panels: an image before and after an attack, what was added, and where the network looked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..report.figure_style import WIDTH, figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = ("clean", "adversarial", "perturbation", "map, clean", "map, adversarial")
_HEIGHT = 1.62  # inches, of a row
_CUT = 26  # characters of a text that stands below a panel


@dataclass(frozen=True)
class PanelRow:
    """One image. Maps are (H, W) and not negative, or None where there are none.

    title: which example and network. clean, adversarial: (C, H, W) in [0, 1]. clean_class,
    adversarial_class: the predictions. clean_confidence, adversarial_confidence: in [0, 1].
    """

    title: str
    clean: Tensor
    adversarial: Tensor
    clean_class: str
    adversarial_class: str
    clean_confidence: float
    adversarial_confidence: float
    clean_map: Tensor | None = None
    adversarial_map: Tensor | None = None
    map_class: str = ""


def draw_panels(rows: Sequence[PanelRow]) -> "Figure":
    """A row of panels for each image. The two maps of a row have one scale."""
    from matplotlib.figure import Figure

    with_maps = any(row.clean_map is not None for row in rows)
    names = _COLUMNS if with_maps else _COLUMNS[:3]
    with figure_style():
        figure = Figure(
            figsize=(WIDTH * len(names) / len(_COLUMNS), _HEIGHT * len(rows) + 0.25),
            layout="constrained",
        )
        grid = figure.subplots(len(rows), len(names), squeeze=False)
        for line, (axes, row) in enumerate(zip(grid, rows, strict=True)):
            for one in axes:
                one.set(xticks=[], yticks=[])
                one.grid(visible=False)
                one.spines[:].set_visible(False)
            axes[0].set_ylabel(row.title)
            if not line:
                for one, name in zip(axes, names, strict=True):
                    one.set_title(name)
            _draw(axes, row)
    return figure


def _draw(axes: Sequence[Any], row: PanelRow) -> None:
    delta = row.adversarial - row.clean
    largest = float(delta.abs().max())
    shown: list[tuple[NDArray[Any], str]] = [
        (_picture(row.clean), f"{row.clean_class[:_CUT]} ({row.clean_confidence:.2f})"),
        (
            _picture(row.adversarial),
            f"{row.adversarial_class[:_CUT]} ({row.adversarial_confidence:.2f})",
        ),
        (
            _picture(0.5 + delta / (2 * largest or 1.0)),
            f"grey 0, full scale ±{255 * largest:.1f}/255",
        ),
    ]
    if row.clean_map is not None and row.adversarial_map is not None:
        top = float(torch.maximum(row.clean_map.max(), row.adversarial_map.max())) or 1.0
        lost = float(row.adversarial_map.sum() / row.clean_map.sum().clamp(min=1e-12))
        shown += [
            (_over(row.clean, row.clean_map / top), f"for {row.map_class[:_CUT]}"),
            (_over(row.adversarial, row.adversarial_map / top), f"{lost:.0%} of its mass left"),
        ]
    for one, (picture, text) in zip(axes, shown, strict=False):
        one.imshow(picture, interpolation="nearest")
        one.set_xlabel(text, fontsize=6.5)


def _picture(image: Tensor) -> NDArray[Any]:
    """(C, H, W) in [0, 1] -> (H, W, 3)."""
    colours = image.detach().cpu().clamp(0.0, 1.0)
    colours = colours if len(colours) == 3 else colours[:1].expand(3, -1, -1)
    return colours.permute(1, 2, 0).numpy()


def _over(image: Tensor, scaled: Tensor) -> NDArray[Any]:
    """(H, W, 3): a map in [0, 1] over the image in grey; bright is large, in print too."""
    import matplotlib as mpl

    grey = _picture(image).mean(axis=2, keepdims=True)
    heat = scaled.detach().cpu().numpy()
    colours = mpl.colormaps["inferno"](heat)[..., :3]
    blended: NDArray[Any] = np.clip(0.35 * grey + 0.75 * colours, 0.0, 1.0)
    return blended
