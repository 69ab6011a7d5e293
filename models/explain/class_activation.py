"""Class activation maps: which places of an image speak for a class.

Sources: Zhou et al. 2016, "Learning deep features for discriminative localization",
arXiv:1512.04150 (CAM); Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks
via gradient-based localization", arXiv:1610.02391.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bench.api.errors import BadParameter
from .layers import Call, calls, check_images, checked_classes, drawing, draws_of, last_map, read

_USE_GRAD_CAM = "use grad_cam, which takes any network with convolutions"
_ROUNDING = 30  # units in the last place of the largest value: how far two means may be apart


@dataclass(frozen=True)
class ActivationMaps:
    """One map an image, as computed: neither scaled nor cut.

    values: (B, h, w), at the layer's resolution, before ReLU; in logits (CAM), or logits per pixel
    of the layer (Grad-CAM). classes: (B,) int64, which class each map speaks of. logits: (B, K).
    layer: whose features these are. note: what the reader should know of the layer, or "".
    """

    values: Tensor
    classes: Tensor
    logits: Tensor
    layer: str
    note: str = ""

    @property
    def positive(self) -> Tensor:
        """(B, h, w): ReLU of the values, what speaks for the class."""
        return self.values.clamp(min=0.0)

    @property
    def blank(self) -> Tensor:
        """(B,) bool: maps where nothing speaks for the class. They are zeros in `positive`."""
        return ~(self.values > 0.0).flatten(1).any(dim=1)

    def upsampled(self, size: tuple[int, int]) -> Tensor:
        """(B, *size): the positive part, interpolated bilinearly to the size of the images."""
        return F.interpolate(
            self.positive[:, None], size=size, mode="bilinear", align_corners=False
        )[:, 0]


def cam(
    model: nn.Module,
    x: Tensor,
    classes: Tensor | int | None = None,
    *,
    draws: int | None = None,
    seed: int = 0,
) -> ActivationMaps:
    """CAM (arXiv:1512.04150, section 2): CAM_c(i, j) = sum_k w_kc f_k(i, j).

    Only for networks whose last maps f are averaged over all positions and go through one linear
    layer: there the class's logit is its bias plus the mean of the map, exactly. Whether a network
    is one is decided by what its layers give for `x`, so that its code may be of any make.

    x: (B, C, H, W) in [0, 1]. classes: (B,) or one for all; by default the predicted ones. draws:
    values and logits are means over so many passes, by default 16 of a stochastic network.

    Raises: BadParameter for a network of another form, with the reason, or a class out of range;
    BadData for images that the network does not take.

    >>> model = nn.Sequential(
    ...     nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    ... ).double()
    >>> maps = cam(model, torch.rand(2, 3, 8, 8).double(), 3)
    >>> maps.layer, maps.values.shape
    ('1', torch.Size([2, 6, 6]))
    >>> rebuilt = model[4].bias[3] + maps.values.mean(dim=(1, 2))
    >>> torch.allclose(rebuilt, maps.logits[:, 3], atol=1e-12)
    True
    """
    check_images(x)
    head = _pooled_head(model, x[:2])
    rows = torch.arange(len(x), device=x.device)
    with torch.no_grad():
        batch = _Batch(model, x, rows, head.layer, draws_of(model, draws), seed)
        passes = list(batch.passes())
        logits, features = (torch.stack(one).mean(dim=0) for one in zip(*passes, strict=True))
        wanted = logits.argmax(dim=1) if classes is None else classes
        chosen = checked_classes(wanted, len(x), logits.shape[1]).to(x.device)
        values = torch.einsum("bk,bkhw->bhw", head.linear.weight[chosen], features)
    return ActivationMaps(values, chosen, logits, head.layer)


def grad_cam(
    model: nn.Module,
    x: Tensor,
    classes: Tensor | int | None = None,
    layer: str | None = None,
    *,
    draws: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> ActivationMaps:
    """Grad-CAM (arXiv:1610.02391, equations 1 and 2) at any layer that gives maps.

    values(i, j) = sum_k a_k f_k(i, j), with a_k the mean over positions of the gradient of the
    class's logit by f_k. ReLU and interpolation are `ActivationMaps.positive` and `.upsampled`.
    Where `cam` applies, the values are those of CAM divided by the number of positions.

    x: (B, C, H, W) in [0, 1]. classes: (B,) or one for all; by default the predicted ones. layer:
    by default the last whose maps have at least 4x4 pixels; `note` says where smaller ones follow.
    Within a detector or an ensemble it is named through the wrapper, "networks.0.stage3": the map
    then tells of the logit of the whole, by the features of that network; by default it is a layer
    of an ensemble's last network.
    draws: values and logits are means over so many passes, by default 16 of a stochastic network.

    Raises: BadParameter for an unknown layer, one without maps or without influence on the logits,
    a class out of range, or a network without convolutions; BadData for images that the network
    does not take.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    >>> maps = grad_cam(model, torch.rand(2, 3, 8, 8), 3)
    >>> maps.layer, maps.values.shape, maps.upsampled((8, 8)).shape
    ('1', torch.Size([2, 6, 6]), torch.Size([2, 8, 8]))
    """
    check_images(x)
    chosen_layer, note = last_map(model, x) if layer is None else (layer, "")
    count = draws_of(model, draws)
    batches = [
        _Batch(model, x[rows], rows, chosen_layer, count, seed)
        for rows in torch.arange(len(x), device=x.device).split(batch_size)
    ]
    logits = torch.cat([batch.logits() for batch in batches])
    wanted = logits.argmax(dim=1) if classes is None else classes
    chosen = checked_classes(wanted, len(x), logits.shape[1]).to(x.device)
    values = torch.cat([batch.values(chosen[batch.rows]) for batch in batches])
    return ActivationMaps(values, chosen, logits, chosen_layer, note)


class _Batch(NamedTuple):
    """Some of the images, and what is to be done with them. rows: (B,), their numbers among all."""

    model: nn.Module
    x: Tensor
    rows: Tensor
    layer: str
    draws: int
    seed: int

    def passes(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (B, K) and features (B, C, H, W) of each draw."""
        for draw in range(self.draws):
            with drawing(self.seed, draw, self.rows):
                logits, found = read(self.model, self.x, [self.layer])
            if found[self.layer].dim() != 4:
                shape = tuple(found[self.layer].shape)
                raise BadParameter(f"layer '{self.layer}' gives {shape}, not maps (B, C, H, W)")
            yield logits, found[self.layer]

    def logits(self) -> Tensor:
        """(B, K): the mean over draws."""
        with torch.no_grad():
            return torch.stack([logits for logits, _ in self.passes()]).mean(dim=0)

    def values(self, classes: Tensor) -> Tensor:
        """(B, h, w): the mean over draws of the maps of these classes, (B,)."""
        with torch.enable_grad():
            batch = self._replace(x=self.x.detach().requires_grad_())
            return torch.stack([batch.weighted(*one, classes) for one in batch.passes()]).mean(0)

    def weighted(self, logits: Tensor, features: Tensor, classes: Tensor) -> Tensor:
        """(B, h, w): the features, each channel by the mean of its gradient."""
        total = logits.gather(1, classes[:, None]).sum()
        gradient = None
        if total.requires_grad and features.requires_grad:
            (gradient,) = torch.autograd.grad(total, features, allow_unused=True)
        if gradient is None:
            raise BadParameter(f"no gradient leads from the logits to layer '{self.layer}'")
        weights = gradient.mean(dim=(2, 3))
        return torch.einsum("bk,bkhw->bhw", weights, features.detach())


class _Head(NamedTuple):
    """layer: whose maps are averaged. linear: what makes logits of the averages."""

    layer: str
    linear: nn.Linear


def _pooled_head(model: nn.Module, x: Tensor) -> _Head:
    """Find the maps and the linear layer that CAM needs. Raises: BadParameter where it cannot."""
    *within, whole = calls(model, x)
    linears = [one for one in within if isinstance(one.module, nn.Linear)]
    if not linears or not _same(linears[-1].output, whole.output):
        raise BadParameter(f"CAM needs logits that a linear layer gives; {_USE_GRAD_CAM}")
    last = linears[-1]
    assert isinstance(last.module, nn.Linear)
    assert last.given is not None
    maps = [one for one in within if one.is_map and one.output[0, 0].numel() > 1]
    averaged = [one for one in maps if _same(one.output.mean(dim=(2, 3)), last.given)]
    if not averaged:
        raise BadParameter(f"CAM: {_why_not(within, maps, last.given)}; {_USE_GRAD_CAM}")
    # the outermost name of these maps, and not the pooling after them
    alike = [one for one in averaged if one.output.shape == averaged[0].output.shape]
    return _Head(alike[-1].name, last.module)


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    allowed = _ROUNDING * torch.finfo(other.dtype).eps * other.abs().max()
    return bool((one - other).abs().max() <= allowed)


def _why_not(within: list[Call], maps: list[Call], given: Tensor) -> str:
    """Say what stands between the maps and what the last linear layer was given."""
    after = within[within.index(maps[-1]) + 1 :] if maps else within
    if any(_same(one.output.flatten(1), given) for one in maps):
        return "the maps are flattened, so that the linear layer mixes positions"
    if sum(isinstance(one.module, nn.Linear) for one in after) > 1:
        return "more than one linear layer follows the maps"
    if any(isinstance(one.module, nn.BatchNorm1d) for one in after):
        return "batch normalisation follows the pooling"
    return "what its linear layer reads is not the mean of a layer's maps"
