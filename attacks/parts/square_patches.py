"""The windows of the Square attack: where they lie, and what fills them in L2 and L1.

Source: Andriushchenko et al. 2020 (arXiv:1912.00049), section 3.4 and algorithm 3: a window of norm
1 holds two hills of opposite sign, and takes over the norm that another window gives up. In L1 as
in AutoAttack (arXiv:2003.01690): steeper hills, the norms are L1 norms, a window takes over so much
for each channel, and what is too large is projected onto the ball, not scaled.
"""

import torch
from torch import Tensor

from ...bench.api.attack import Problem
from ...bench.api.threat import Norm, measure, per_example

_TINY = 1e-12
_TILES = 5  # along a side at the start
_FALL: dict[Norm, float] = {"L2": -2.0, "L1": -4.0}  # of a hill's squares, a power of their number


def within(top: Tensor, left: Tensor, side: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W) bool: the pixels of each example's square, from top and left (B,)."""
    row = torch.arange(height, device=top.device)[None] - top[:, None]
    column = torch.arange(width, device=top.device)[None] - left[:, None]
    rows = (row >= 0) & (row < side[:, None])
    columns = (column >= 0) & (column < side[:, None])
    return rows[:, :, None] & columns[:, None, :]


def place(drawn: Tensor, room: Tensor, *, last: bool) -> Tensor:
    """(B,) int64: where squares begin, by numbers drawn from [0, 1), (B,), with `room` to spare.

    last: whether they may lie at the very end, as those of the authors' programs never do.
    """
    return (drawn * (room + last)).long()


def place_windows(problem: Problem, x_adv: Tensor, side: Tensor, *, last: bool = True) -> Tensor:
    """(B, C, H, W): x_adv with a new window, paid for by a second one and by what norm is spare.

    side: (B,) int64, of the windows. last: as for `place`.
    """
    batch, channels, height, width = x_adv.shape
    norm = problem.ball.norm
    delta = (x_adv - problem.x).double()
    drawn = problem.draws.uniform((5 + channels,), "windows")
    rows, columns = ((n - side)[:, None] for n in (height, width))
    top, top_other = place(drawn[:, :2], rows, last=last).unbind(dim=1)
    left, left_other = place(drawn[:, 2:4], columns, last=last).unbind(dim=1)
    new = within(top, left, side, height, width)[:, None]
    given_up = within(top_other, left_other, side, height, width)[:, None]
    signs = torch.where(drawn[:, 5:] < 0.5, -1.0, 1.0).reshape(batch, channels, 1, 1)
    hills = window_shapes(top, left, side, drawn[:, 4] < 0.5, height, width, norm)[:, None]
    old = delta * new
    shape = hills * signs + old / _by_channel(old, norm).clamp(min=_TINY)
    freed = _by_channel(delta * (new | given_up), norm)
    total = per_example(measure(delta, norm), x_adv)
    epsilon = per_example(problem.epsilon, x_adv)
    if norm == "L2":
        mass = ((epsilon**2 - total**2).clamp(min=0.0) / channels + freed**2).sqrt()
    else:
        mass = (epsilon - total).clamp(min=0.0) + freed * channels
    filled = shape / _by_channel(shape, norm).clamp(min=_TINY) * mass
    return _at_the_edge(problem, torch.where(new, filled, delta * ~given_up))


def tiled_start(problem: Problem) -> Tensor:
    """(B, C, H, W): about five by five windows, each turned and of a sign by channel at random."""
    height, width = problem.x.shape[2:]
    side = max(1, min(height, width) // _TILES)
    row, column = (torch.arange(n, device=problem.x.device) for n in (height, width))
    row, column = row - (height % side) // 2, column - (width % side) // 2
    zeros = torch.zeros(2, dtype=torch.int64, device=problem.x.device)
    turns = zeros == torch.arange(2, device=zeros.device)  # one upright, one turned
    hills = window_shapes(zeros, zeros, zeros + side, turns, side, side, problem.ball.norm)
    down, across = height // side, width // side
    signs = problem.draws.signs((problem.x.shape[1], down, across), "tiles")
    turned = problem.draws.uniform((1, down, across), "turns") < 0.5
    inside = ((row >= 0) & (row < down * side))[:, None] & (column >= 0) & (column < across * side)
    tile = (row // side).clamp(0, down - 1)[:, None], (column // side).clamp(0, across - 1)
    upright, lying = (hill[row % side][:, column % side] for hill in hills)
    pattern = torch.where(turned[:, :, *tile], lying, upright) * inside
    return _at_the_edge(problem, signs[:, :, *tile].double() * pattern)


def _at_the_edge(problem: Problem, delta: Tensor) -> Tensor:
    """x + delta, in L2 scaled to the norm that is allowed, then brought into the ball."""
    if problem.ball.norm == "L1":
        return problem.ball.project(problem.x.double() + delta)
    size = measure(delta, problem.ball.norm).clamp(min=_TINY)
    return problem.ball.project(problem.x + delta * per_example(problem.epsilon / size, delta))


def _by_channel(delta: Tensor, norm: Norm) -> Tensor:
    """(B, C, 1, 1): the norm of each channel of (B, C, H, W)."""
    return measure(delta.flatten(0, 1), norm).reshape(*delta.shape[:2], 1, 1)


def window_shapes(
    top: Tensor, left: Tensor, side: Tensor, across: Tensor, height: int, width: int, norm: Norm
) -> Tensor:
    """(B, H, W) float64: two hills of opposite sign, one above the other, in windows of norm 1.

    A hill of half the window is a heap of squares around its middle, the k-th of side 2k - 1 and
    height 1 / k^2 (1 / k^4 in L1), interrupted at its border; both have the same norm. across: (B,)
    bool, side by side instead. top, left, side: (B,) int64.
    """
    row = torch.arange(height, device=top.device)[None, :, None] - _per_window(top)
    column = torch.arange(width, device=top.device)[None, None, :] - _per_window(left)
    turned = _per_window(across)
    first = torch.where(turned, column, row)
    second = torch.where(turned, row, column)
    side = _per_window(side)
    upper = side // 2
    inside = (first >= 0) & (first < side) & (second >= 0) & (second < side)
    above = first < upper
    extent = torch.where(above, upper, side - upper)
    place = torch.where(above, first, first - upper)
    ring = torch.maximum((place - extent // 2).abs(), (second - side // 2).abs())
    squares = torch.arange(1, max(height, width) + 2, device=top.device, dtype=torch.float64)
    heaped = torch.cat([squares.new_zeros(1), squares.pow(_FALL[norm]).cumsum(0)])
    levels = torch.maximum(extent // 2, side // 2) + 1
    heights = heaped[levels] - heaped[ring.minimum(levels)]
    one, other = heights * (inside & above), heights * (inside & ~above)
    return _unit(_unit(one, norm) - _unit(other, norm), norm)


def _unit(hill: Tensor, norm: Norm) -> Tensor:
    """A hill, or a window, (B, H, W) of norm 1; one that has no pixels stays empty."""
    return hill / measure(hill, norm).clamp(min=_TINY)[:, None, None]


def _per_window(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1)."""
    return values[:, None, None]
