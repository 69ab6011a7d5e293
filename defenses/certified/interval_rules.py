"""What each operation of a network makes of intervals.

Source: Gowal et al. 2018, arXiv:1810.12715, section 3: through an affine layer the centre goes as
it is and the radius by magnitudes; what never falls takes the bounds one by one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .intervals import RULES, Head, Interval, Rule, Unbounded


def _rule(*names: str) -> Callable[[Rule], Rule]:
    """Note what stands in for functions of these names."""

    def note(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return note


def _same(x: Interval, other: Tensor) -> Tensor:
    return other.to(x.lower.dtype)


def _affine(
    x: Interval,
    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    weight: Tensor,
    bias: Tensor | None,
) -> Interval:
    weight = _same(x, weight)
    bias = None if bias is None else _same(x, bias)
    size = weight.abs()
    middle, spread = apply(x.centre, weight, bias), apply(x.radius, size, None)
    bounds = Interval(middle - spread, middle + spread, x.unit)
    if not x.unit:
        return bounds
    magnitude = apply(x.largest, size, None if bias is None else bias.abs())
    return bounds.widened(magnitude, weight[0].numel() + 1)


@_rule("linear")
def _linear(input: Interval, weight: Tensor, bias: Tensor | None = None) -> Interval:
    bounds = _affine(input, F.linear, weight, bias)
    if input.dim() != 2:
        return bounds
    weight = _same(input, weight)
    shift = weight.new_zeros(len(weight)) if bias is None else _same(input, bias)
    return Interval(bounds.lower, bounds.upper, bounds.unit, Head(input, weight, shift))


@_rule("conv2d")
def _conv2d(
    input: Interval, weight: Tensor, bias: Tensor | None = None, *settings: Any, **named: Any
) -> Interval:
    return _affine(input, lambda x, w, b: F.conv2d(x, w, b, *settings, **named), weight, bias)


@_rule("batch_norm")
def _batch_norm(
    input: Interval,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Interval:
    if training or running_mean is None or running_var is None:
        raise Unbounded("batch normalisation by the batch's own statistics")

    def shaped(one: Tensor) -> Tensor:
        return _same(input, one).reshape(1, -1, *[1] * (input.dim() - 2))

    mean, factor = shaped(running_mean), (shaped(running_var) + eps).rsqrt()
    factor = factor if weight is None else factor * shaped(weight)
    shift = torch.zeros_like(mean) if bias is None else shaped(bias)
    ends = (input.lower - mean) * factor + shift, (input.upper - mean) * factor + shift
    bounds = Interval(torch.minimum(*ends), torch.maximum(*ends), input.unit)
    return bounds.widened((input.largest + mean.abs()) * factor.abs() + shift.abs(), 8)


@_rule("relu")
def _relu(input: Interval, inplace: bool = False) -> Interval:
    return input.each(torch.relu)


@_rule("max_pool2d")
def _max_pool2d(input: Interval, *settings: Any, **named: Any) -> Interval:
    return input.each(lambda one: F.max_pool2d(one, *settings, **named))


@_rule("avg_pool2d")
def _avg_pool2d(input: Interval, *settings: Any, **named: Any) -> Interval:
    return _averaged(input, lambda one: F.avg_pool2d(one, *settings, **named))


@_rule("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(input: Interval, output_size: Any) -> Interval:
    return _averaged(input, lambda one: F.adaptive_avg_pool2d(one, output_size))


@_rule("mean")
def _mean(input: Interval, dim: Any = None, keepdim: bool = False) -> Interval:
    return _averaged(input, lambda one: one.mean(dim=dim, keepdim=keepdim))


def _averaged(x: Interval, act: Callable[[Tensor], Tensor]) -> Interval:
    """A mean of some of an example's values: of no more than there are."""
    return x.each(act).widened(act(x.largest), x.lower[0].numel())


@_rule("dropout")
def _dropout(input: Interval, p: float = 0.5, training: bool = True, **named: Any) -> Interval:
    if training:
        raise Unbounded("dropout in training mode")
    return input


@_rule("pad")
def _pad(input: Interval, pad: Any, mode: str = "constant", value: float | None = None) -> Interval:
    return input.each(lambda one: F.pad(one, pad, mode, value))


@_rule("flatten")
def _flatten(input: Interval, start_dim: int = 0, end_dim: int = -1) -> Interval:
    return input.flatten(start_dim, end_dim)


@_rule("cat", "concat")
def _cat(tensors: Sequence[Interval], dim: int = 0) -> Interval:
    lower, upper = ([getattr(one, side) for one in tensors] for side in ("lower", "upper"))
    return Interval(torch.cat(lower, dim), torch.cat(upper, dim), tensors[0].unit)


@_rule("add", "radd")
def _add(input: Any, other: Any, *, alpha: float = 1) -> Interval:
    if alpha != 1:
        raise Unbounded("a sum with 'alpha'")
    x, y = (input, other) if isinstance(input, Interval) else (other, input)
    if isinstance(y, Interval):
        bounds = Interval(x.lower + y.lower, x.upper + y.upper, x.unit)
        return bounds.widened(x.largest + y.largest, 2)
    y = torch.as_tensor(y, device=x.device, dtype=x.lower.dtype)
    return x.each(lambda one: one + y).widened(x.largest + y.abs(), 2)


@_rule("sub")
def _sub(input: Any, other: Any, *, alpha: float = 1) -> Interval:
    return _add(input, -other, alpha=alpha)


@_rule("rsub")
def _rsub(input: Any, other: Any) -> Interval:
    return _add(-input, other)


@_rule("mul", "rmul")
def _scale(input: Any, other: Any) -> Interval:
    x, factor = (input, other) if isinstance(input, Interval) else (other, input)
    if isinstance(factor, Interval):
        raise Unbounded("a product of intervals")
    factor = torch.as_tensor(factor, device=x.device, dtype=x.lower.dtype)
    ends = x.lower * factor, x.upper * factor
    bounds = Interval(torch.minimum(*ends), torch.maximum(*ends), x.unit)
    return bounds.widened(x.largest * factor.abs(), 3)


@_rule("div", "truediv", "true_divide")
def _divide(input: Any, other: Any) -> Interval:
    if not isinstance(input, Interval) or isinstance(other, Interval):
        raise Unbounded("a quotient by an interval")
    divisor = torch.as_tensor(other, device=input.device, dtype=input.lower.dtype)
    return _scale(input, 1 / divisor)
