"""Interval bound propagation: what a network answers when the input is anywhere in a box.

Source: Gowal et al. 2018, "On the effectiveness of interval bound propagation for training
verifiably robust models", arXiv:1810.12715, section 3.
"""

from contextlib import ExitStack

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bench.api.errors import BadParameter
from . import interval_rules  # noqa: F401  (fills the table of rules)
from .intervals import Interval, Unbounded

FLOAT32 = 2.0**-24  # unit roundoff of the arithmetic that predictions are made in


def around(x: Tensor, epsilon: Tensor) -> Interval:
    """The images within epsilon (B,) of x (B, C, H, W) in Linf and in [0, 1], for training."""
    wide = epsilon.reshape(-1, 1, 1, 1).to(x.dtype)
    return Interval((x - wide).clamp(0.0, 1.0), (x + wide).clamp(0.0, 1.0))


def surely_around(x: Tensor, epsilon: Tensor) -> Interval:
    """As `around`, in float64 and rounded outwards: no image of the ball is left out.

    The bounds that follow hold what a network computes in float32.
    """
    exact, wide = x.double(), epsilon.double().reshape(-1, 1, 1, 1)
    infinity = torch.full_like(exact, torch.inf)
    lower = torch.nextafter(exact - wide, -infinity).clamp(0.0, 1.0)
    upper = torch.nextafter(exact + wide, infinity).clamp(0.0, 1.0)
    return Interval(lower, upper, FLOAT32)


def propagate(network: nn.Module, box: Interval) -> Interval:
    """Bounds of the logits of a network in evaluation mode over a box (B, C, H, W).

    Convolutions, linear layers, ReLU, poolings, batch normalisation, dropout, flattening, sums,
    concatenations and scaling by constants have rules.

    Raises: BadParameter, naming the layer, for a network that does something else.
    """
    try:
        found = network(box)
    except (Unbounded, TypeError, AttributeError, ValueError) as error:
        layer, kind = _innermost(network, box)
        where = f"layer '{layer}' ({kind})" if layer else kind
        raise BadParameter(f"interval bounds cannot pass {where}: {error}") from error
    if not isinstance(found, Interval):
        raise BadParameter(f"interval bounds got lost in {type(network).__name__}")
    return found


def margins(logits: Interval, y: Tensor) -> Tensor:
    """(B, K): lower bounds of the margin of y (B,) over each other class; 0 for y itself.

    Where a linear layer comes last its bounds are taken of the differences of its rows, which are
    tighter than those of the two logits (section 3 of the paper).
    """
    rows = torch.arange(len(y), device=y.device)
    if logits.head is None:
        margin = logits.lower[rows, y][:, None] - logits.upper
    else:
        inner, weight, bias = logits.head.inner, logits.head.weight, logits.head.bias
        between = weight[y][:, None] - weight
        middle = (between @ inner.centre[:, :, None])[..., 0] + bias[y][:, None] - bias
        spread = (between.abs() @ inner.radius[:, :, None])[..., 0]
        size = F.linear(inner.largest, weight.abs(), bias.abs())
        both = size[rows, y][:, None] + size
        terms = weight.shape[1]
        margin = Interval(middle - spread, middle + spread, inner.unit).widened(both, terms).lower
    return margin.scatter(1, y[:, None], 0.0)


def _innermost(network: nn.Module, box: Interval) -> tuple[str, str]:
    """The name and the class of the innermost layer that breaks down over the box."""
    stack: list[nn.Module] = []
    with ExitStack() as hooks:
        for one in network.modules():
            before = one.register_forward_pre_hook(lambda module, _: stack.append(module))
            after = one.register_forward_hook(lambda *_: stack.pop() and None)
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        try:
            network(box)
        except Exception:  # the very one that is to be reported
            last = stack[-1] if stack else network
            name = next(name for name, one in network.named_modules() if one is last)
            return name, type(last).__name__
    return "", type(network).__name__
