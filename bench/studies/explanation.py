"""Adversarial examples that are there already, explained: panels, and how the maps changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn

from ...models.explain.class_activation import grad_cam
from ...models.explain.layers import has_convolutions, read
from ...models.explain.map_comparison import compare_maps
from ...models.explain.similarity import psnr, ssim
from .panels import PanelRow, draw_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = ("rank_correlation", "ssim", "shift", "mass_left")
_ROWS = 8


@dataclass(frozen=True)
class Explanation:
    """What was shown of some images.

    table: a row for each: predictions with confidences, PSNR and SSIM of the adversarial example,
    and how the map of the clean class changed (`models/explain/map_comparison`), nan where one of
    the two maps is blank. note: on the layer whose maps are compared.
    """

    table: pd.DataFrame
    panels: Sequence[PanelRow]
    note: str = ""

    @property
    def figure(self) -> "Figure":
        """Clean, adversarial, perturbation and both maps of the first images, as a figure."""
        return draw_panels(self.panels[:_ROWS])


def explain_images(
    module: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    titles: Sequence[str],
    class_names: Sequence[str],
    layer: str | None = None,
) -> Explanation:
    """Say what a network saw in images before and after an attack.

    x, x_adv: (N, C, H, W) on the module's device. titles: (N,), what stands beside each.
    class_names: of the network's classes; more are numbered. layer: by default the last with maps
    of 4x4 pixels or more. Without convolutions there are no maps.

    Raises: BadParameter for an unknown layer; QuintainError without scikit-image.
    """
    with torch.no_grad():
        shares = [read(module, images, [])[0].softmax(dim=1).cpu() for images in (x, x_adv)]
    classes = [one.argmax(dim=1) for one in shares]
    confidence = [one.amax(dim=1) for one in shares]
    table = pd.DataFrame(
        {
            "image": list(titles),
            "clean_prediction": classes[0],
            "clean_confidence": confidence[0],
            "adversarial_prediction": classes[1],
            "adversarial_confidence": confidence[1],
            "psnr": psnr(x_adv, x).cpu(),
            "image_ssim": ssim(x_adv, x).cpu(),
        }
    )
    maps: list[Tensor] | None = None
    note = ""
    if has_convolutions(module):
        before = grad_cam(module, x, classes[0], layer)
        after = grad_cam(module, x_adv, classes[0], before.layer)
        maps = [one.upsampled((x.shape[2], x.shape[3])).cpu() for one in (before, after)]
        note = before.note
        found = compare_maps(after.positive, before.positive)
        for measure in MEASURES:
            table[measure] = float("nan")
            table.loc[found.rows.tolist(), measure] = getattr(found, measure).cpu().numpy()
        table["shift"] *= x.shape[2] / before.values.shape[1]  # pixels of the image

    def name(number: int) -> str:
        return class_names[number] if number < len(class_names) else f"class {number}"

    rows = [
        PanelRow(
            titles[row],
            x[row].cpu(),
            x_adv[row].cpu(),
            name(int(classes[0][row])),
            name(int(classes[1][row])),
            float(confidence[0][row]),
            float(confidence[1][row]),
            None if maps is None else maps[0][row],
            None if maps is None else maps[1][row],
            name(int(classes[0][row])),
        )
        for row in range(len(x))
    ]
    return Explanation(table, rows, note)
